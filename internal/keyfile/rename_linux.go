package keyfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames a file, unless the new name is taken. The error is an *os.LinkError.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return linkNew(from, to) // the file system does not have the flag, as NFS
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
