package keyfile

import (
	"os"

	"golang.org/x/sys/windows"
)

// renameNew renames a file, unless the new name is taken. The error is an *os.LinkError.
func renameNew(from, to string) error {
	old, err := windows.UTF16PtrFromString(from)
	if err == nil {
		var name *uint16
		if name, err = windows.UTF16PtrFromString(to); err == nil {
			err = windows.MoveFileEx(old, name, windows.MOVEFILE_WRITE_THROUGH)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
