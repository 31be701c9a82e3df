package bpffs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnfit: the directory is not on a BPF file system, or others may change what is in it.
	ErrUnfit = errors.New("unfit directory")
	// ErrBusy: another process uses the directory.
	ErrBusy = errors.New("another process uses the directory")
)

// Dir is a directory that is locked: no other process uses it. It has a folder for maps, whose name says
// which layout they have. The methods may be called concurrently.
type Dir struct {
	path, maps string
	lock       *os.File
}

// Open creates a directory, if there is none, and its folder for maps, and locks it. The caller closes the
// Dir. Errors wrap ErrUnfit or ErrBusy, or come from the system.
func Open(path, maps string) (*Dir, error) {
	for {
		made, err := create(path, maps)
		if err != nil {
			return nil, fmt.Errorf("create the directory to pin in: %w", err)
		}
		d, err := Lock(path, maps)
		if errors.Is(err, errReplaced) || errors.Is(err, fs.ErrNotExist) {
			continue // another process has just removed it
		}
		if err != nil && made {
			_ = (&Dir{path: path, maps: maps}).Remove() // fails if another process has begun to use it
		}
		return d, err
	}
}

// create makes what is missing, and reports whether that was the directory itself. What is in the directory
// of somebody else stays as it is.
func create(path, maps string) (made bool, err error) {
	_, err = os.Stat(path)
	if made = errors.Is(err, fs.ErrNotExist); made {
		err = os.MkdirAll(path, 0o700)
	}
	if err == nil && fit(path) == nil {
		err = os.MkdirAll(filepath.Join(path, maps), 0o700)
	}
	return made, err
}

// errReplaced: the directory was removed before it was locked. The lock has no effect, because another
// process may have created a directory with the same name.
var errReplaced = errors.New("the directory was removed before it was locked")

// Lock opens and locks a directory that exists. The error is fs.ErrNotExist if there is none.
func Lock(path, maps string) (*Dir, error) {
	lock, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, maps: maps, lock: lock}
	if err := d.check(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// check checks and locks the directory, and checks that it still has its name.
func (d *Dir) check() error {
	if err := fit(d.path); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w %s", ErrBusy, d.path)
	}
	locked, err := d.lock.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(d.path); err != nil || !os.SameFile(locked, named) {
		return errReplaced
	}
	return nil
}

// fit checks the file system of a directory, and that only root and the process's user can change what is
// in it. The root of a BPF file system is often open to all.
func fit(path string) error {
	var system unix.Statfs_t
	if err := unix.Statfs(path, &system); err != nil {
		return err
	}
	if uint32(system.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%w: %s is not on a BPF file system; mount one with: mount -t bpf bpf /sys/fs/bpf", ErrUnfit, path)
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return err
	}
	if file.Uid != 0 && int(file.Uid) != os.Geteuid() || file.Mode&0o002 != 0 {
		return fmt.Errorf("%w: others may change what is in %s; name a directory that does not exist, or of which only root or the process's user is the owner and may write to it", ErrUnfit, path)
	}
	return nil
}

// Path returns the path of a file in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Maps returns the path of the folder for maps.
func (d *Dir) Maps() string { return filepath.Join(d.path, d.maps) }

// RemoveMaps removes the files of maps, if they exist.
func (d *Dir) RemoveMaps(names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, RemoveFile(filepath.Join(d.Maps(), name)))
	}
	return errors.Join(errs...)
}

// RemoveFormer removes folders for maps of other layouts, with all that is in them, and reports whether there
// was one.
func (d *Dir) RemoveFormer(names ...string) (found bool, err error) {
	for _, name := range names {
		files, failed := os.ReadDir(d.Path(name))
		if errors.Is(failed, fs.ErrNotExist) {
			continue
		}
		found = true
		for _, f := range files {
			failed = errors.Join(failed, RemoveFile(filepath.Join(d.Path(name), f.Name())))
		}
		err = errors.Join(err, failed, RemoveFile(d.Path(name)))
	}
	return found, err
}

// Remove removes the directory. It fails if the directory is not empty.
func (d *Dir) Remove() error { return errors.Join(RemoveFile(d.Maps()), os.Remove(d.path)) }

// Close unlocks the directory, so that the next process can use it.
func (d *Dir) Close() error { return d.lock.Close() }

// RemoveFile removes a file, if it exists.
func RemoveFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
