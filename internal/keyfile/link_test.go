//go:build !windows

package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestLinkNew checks the way for file systems that cannot rename without replacing.
func TestLinkNew(t *testing.T) {
	dir := t.TempDir()
	from, to := write(t, filepath.Join(dir, "from"), "key", 0o600), filepath.Join(dir, "to")
	if err := linkNew(from, to); err != nil {
		t.Fatal(err)
	}
	if err := linkNew(write(t, from, "other", 0o600), to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if b, err := os.ReadFile(to); err != nil || string(b) != "key" {
		t.Errorf("got %q, %v", b, err)
	}
}
