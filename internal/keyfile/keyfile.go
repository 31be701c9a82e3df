// Package keyfile reads and writes small files whose content decides whom a program is, or
// whom it trusts: keys, secrets, and the IDs of others. A file is always there as a whole, or
// not at all: whoever reads it, and whenever a process is killed.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Permissions that a file must not give. Windows has none of them: there, the access control
// list of the folder decides, and nothing is checked.
const (
	// Secret is for files that nobody but their owner may read or change.
	Secret fs.FileMode = 0o077
	// Trusted is for files that others may read, but not everybody may change.
	Trusted fs.FileMode = 0o002
)

var (
	// ErrExposed: the permissions of a file give others too much.
	ErrExposed = errors.New("others can")
	// ErrIrregular: what has the name is no regular file.
	ErrIrregular = errors.New("not a regular file")
	// ErrTooLarge: a file is larger than it may be.
	ErrTooLarge = errors.New("too large")
)

// Read returns the content of a file, or of the file that a symbolic link leads to. An error
// wraps ErrIrregular if it is a folder, a pipe or a device, ErrTooLarge if it has more than
// max bytes, ErrExposed if it has one of the forbidden permissions, or is the system's. Each
// error names the file.
func Read(name string, max int64, forbidden fs.FileMode) ([]byte, error) {
	info, err := os.Stat(name) // before it is opened, which may block for a pipe
	if err == nil {
		err = check(name, info, max, forbidden)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err == nil { // of the file that has been opened
		err = check(name, info, max, forbidden)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = tooLarge(name, max)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// check returns why a file is not read.
func check(name string, info fs.FileInfo, max int64, forbidden fs.FileMode) error {
	excess := info.Mode().Perm() & forbidden
	switch {
	case info.IsDir():
		return fmt.Errorf("%s: %w, but a folder", name, ErrIrregular)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: %w", name, ErrIrregular)
	case info.Size() > max:
		return tooLarge(name, max)
	case excess == 0 || runtime.GOOS == "windows":
		return nil
	case forbidden&0o444 != 0:
		return fmt.Errorf("%s: %w read or change it (mode %#o): run chmod 600 %s", name, ErrExposed, info.Mode().Perm(), name)
	}
	return fmt.Errorf("%s: %w change it (mode %#o): run chmod o-w %s", name, ErrExposed, info.Mode().Perm(), name)
}

func tooLarge(name string, max int64) error {
	return fmt.Errorf("%s: %w: more than %d bytes", name, ErrTooLarge, max)
}

// Create writes a new file that only its owner may read. It never replaces what has the name,
// not even a symbolic link to nothing: then the error wraps [fs.ErrExist]. If two processes
// create the same file, one of them succeeds, and the other one finds a complete file.
func Create(name string, data []byte) (err error) {
	dir, base := filepath.Split(name)
	f, err := os.CreateTemp(filepath.Clean(dir), "."+base+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := fill(f, data); err != nil {
		return err
	}
	if err := renameNew(f.Name(), name); err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: errors.Unwrap(err)}
	}
	syncFolder(dir)
	return nil
}

// fill writes a file to the disk, and closes it.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncFolder writes the names in a folder to the disk, so that a new file is there after a
// crash of the system. Some systems and file systems cannot do that: then it is up to them.
func syncFolder(dir string) {
	if runtime.GOOS == "windows" {
		return
	}
	if f, err := os.Open(filepath.Clean(dir)); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}
