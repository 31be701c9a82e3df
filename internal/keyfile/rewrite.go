package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// lockPatience is how long Rewrite waits for another process that changes the file.
	// It is longer than several writes to a busy disk.
	lockPatience = 20 * time.Second
	lockPause    = 20 * time.Millisecond
)

// Rewrite replaces the content of a file by what change makes of it. The content is nil if
// the file does not exist; then the new file can be read only by its owner. Otherwise the
// file keeps its permissions. A symbolic link is followed. Of several processes that rewrite
// the same file, each sees what the one before has written. If change returns an error,
// Rewrite returns it, and the file stays. Limit and permissions are those of [Read].
//
// The new content is written to a file with the same name and ".lock", which is renamed in the
// end. A process that is killed may leave it: then the errors of others say so.
func Rewrite(name string, max int64, forbidden fs.FileMode, change func(old []byte) ([]byte, error)) (err error) {
	if name, err = target(name); err != nil {
		return err
	}
	f, err := lock(name + ".lock")
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if !renamed {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	old, err := Read(name, max, forbidden)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isNew {
		return err
	}
	data, err := change(old)
	switch {
	case err != nil:
		return err
	case !isNew && bytes.Equal(data, old):
		return nil
	case int64(len(data)) > max:
		return tooLarge(name, max)
	}
	if err := keepMode(f, name); err != nil {
		return err
	}
	if err := fill(f, data); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	renamed = true
	syncFolder(filepath.Dir(name))
	return nil
}

// target returns the file that a symbolic link leads to, or the name itself if there is none.
// A link to nothing is an error.
func target(name string) (string, error) {
	resolved, err := filepath.EvalSymlinks(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Lstat(name); missing != nil {
			return name, nil
		}
	}
	return resolved, err
}

// lock creates a file that must not exist. It waits until another process has removed it.
func lock(name string) (*os.File, error) {
	for until := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		case time.Now().After(until):
			return nil, fmt.Errorf("%w: another process is writing, or has been killed: if so, remove the file", err)
		}
	}
}

// keepMode gives f the permissions of an existing file.
func keepMode(f *os.File, name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return f.Chmod(info.Mode().Perm())
}
