//go:build !linux && !windows

package keyfile

// renameNew renames a file, unless the new name is taken. The error is an *os.LinkError.
func renameNew(from, to string) error { return linkNew(from, to) }
