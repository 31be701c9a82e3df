//go:build !windows

package keyfile

import "os"

// linkNew renames a file by a second name for it. Unlike a rename, a link does not replace a
// file.
func linkNew(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
