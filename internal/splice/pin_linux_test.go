package splice

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestPinRefused checks that Load and Unpin refuse a directory that is not on a BPF file system.
func TestPinRefused(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	dir := filepath.Join(t.TempDir(), "splice")
	if _, err := Load(&Config{Pin: dir}); !errors.Is(err, ErrConfig) {
		t.Errorf("pinned on another file system: %v, want %v", err, ErrConfig)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left after a failure: %v", err)
	}
	if err := Unpin(dir); err != nil {
		t.Errorf("unpin a directory that does not exist: %v", err)
	}
}

// TestPinAttachment checks that an attachment outlives the program, is taken over, and ends with Detach
// and Unpin.
func TestPinAttachment(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	newVeth(t)
	dir := filepath.Join(nettest.BPFFS(t), "a", "splice")
	load := func() *Program { return mustLoad(t, &Config{Pin: dir, MaxPairs: 2}) }
	pinned := func() int {
		t.Helper()
		links, err := filepath.Glob(filepath.Join(dir, pinnedLinks+"*"+pinnedIngress))
		if err != nil {
			t.Fatal(err)
		}
		return len(links)
	}
	p := load()
	if !p.Pinned() {
		t.Error("not pinned")
	}
	if err := p.Attach("q0"); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("unpinned while it is used: %v, want %v", err, ErrBusy)
	}
	if err := p.Close(t.Context()); err != nil || pinned() != 1 {
		t.Fatalf("%v; %d attachments after Close, want 1", err, pinned())
	}
	p = load()
	if err := p.Attach("q0"); err != nil {
		t.Errorf("taken over: %v", err)
	}
	if err := p.Attach("q0"); !errors.Is(err, ErrBusy) {
		t.Errorf("attached twice: %v, want %v", err, ErrBusy)
	}
	if err := p.Detach(t.Context(), "q0"); err != nil || pinned() != 0 {
		t.Errorf("%v; %d attachments after Detach, want none", err, pinned())
	}
	if err := p.Attach("q0"); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	p = load()
	if err := p.Attach("q0"); err != nil {
		t.Errorf("attach after Unpin: %v", err)
	}
}
