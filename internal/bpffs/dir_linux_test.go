package bpffs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestReplaced checks that a lock on a directory that was removed is noticed, also if another directory
// has its name.
func TestReplaced(t *testing.T) {
	path := filepath.Join(nettest.BPFFS(t), "a", "b")
	d, err := Open(path, "maps")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Open(path, "maps"); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v, want %v", err, ErrBusy)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := d.check(); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errReplaced) {
		t.Errorf("%v, want an error for a directory without a name", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.check(); !errors.Is(err, errReplaced) {
		t.Errorf("%v, want %v if another directory has the name", err, errReplaced)
	}
}

// TestUnfit checks that a directory is refused that others may change, and stays as it is.
func TestUnfit(t *testing.T) {
	root := nettest.BPFFS(t)
	for name, change := range map[string]func(path string) error{
		"somebody else's": func(path string) error { return os.Chown(path, 65534, 65534) },
		"open to all":     func(path string) error { return os.Chmod(path, 0o777|os.ModeSticky) },
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.Mkdir(path, 0o700), change(path)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, "maps"); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v, want %v", name, err, ErrUnfit)
		}
		if left, err := os.ReadDir(path); err != nil || len(left) != 0 {
			t.Errorf("%s: %v was made in it, %v", name, left, err)
		}
	}
}

// TestOtherFileSystem checks that nothing is left on another file system.
func TestOtherFileSystem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if _, err := Open(path, "maps"); !errors.Is(err, ErrUnfit) {
		t.Errorf("%v, want %v", err, ErrUnfit)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left after a failure: %v", err)
	}
	if _, err := Lock(path, "maps"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want %v", err, unix.ENOENT)
	}
}
