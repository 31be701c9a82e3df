package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

const limit = 100

// write writes a file with a mode, whatever the umask is.
func write(t *testing.T, name, content string, mode fs.FileMode) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, []byte(content), 0o600), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

// link makes a symbolic link, or skips the test where the system allows none.
func link(t *testing.T, to, name string) string {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip("symbolic links need a privilege:", err)
		}
		t.Fatal(err)
	}
	return name
}

// names returns the names in a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// TestRead checks which files are read, and that errors name the file and say what to do.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	good := write(t, in("good"), "key", 0o600)
	for _, test := range []struct {
		name, file string
		forbidden  fs.FileMode
		want       error // nil: "key"
		says       string
	}{
		{"a file", good, Secret, nil, ""},
		{"read only", write(t, in("ro"), "key", 0o400), Secret, nil, ""},
		{"a link", link(t, "good", in("link")), Secret, nil, ""},
		{"a link to an exposed file", link(t, write(t, in("target"), "key", 0o644), in("link2")), Secret, ErrExposed, "run chmod 600"},
		{"missing", in("none"), Secret, fs.ErrNotExist, "none"},
		{"a folder", dir, Secret, ErrIrregular, "folder"},
		{"a device", os.DevNull, Secret, ErrIrregular, os.DevNull},
		{"too large", write(t, in("large"), strings.Repeat("k", limit+1), 0o600), Secret, ErrTooLarge, "100 bytes"},
		{"others read", write(t, in("r"), "key", 0o604), Secret, ErrExposed, "0604"},
		{"the group reads", write(t, in("g"), "key", 0o640), Secret, ErrExposed, "0640"},
		{"the group changes", write(t, in("w"), "key", 0o620), Secret, ErrExposed, "0620"},
		{"others read what is no secret", in("r"), Trusted, nil, ""},
		{"everybody changes what is no secret", write(t, in("all"), "key", 0o666), Trusted, ErrExposed, "run chmod o-w"},
	} {
		if runtime.GOOS == "windows" && test.want == ErrExposed {
			test.want = nil // no permissions are checked there
		}
		b, err := Read(test.file, limit, test.forbidden)
		switch {
		case test.want == nil && (err != nil || string(b) != "key"):
			t.Errorf("%s: got %q, %v", test.name, b, err)
		case test.want != nil && (!errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), test.file)):
			t.Errorf("%s: got %v, want %v that says %q", test.name, err, test.want, test.says)
		}
	}
}

// TestCreate checks that a new file is secret and complete, that nothing is ever replaced, and
// that nothing else is left.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := Create(file, []byte("one")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	dangling := link(t, "nothing", filepath.Join(dir, "link"))
	for _, taken := range []string{file, dangling, dir} {
		if err := Create(taken, []byte("two")); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), taken) {
			t.Errorf("%s: got %v, want %v", taken, err, fs.ErrExist)
		}
	}
	if err := Create(filepath.Join(dir, "none", "key"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: got %v", err)
	}
	if b, err := Read(file, limit, Secret); err != nil || string(b) != "one" {
		t.Errorf("got %q, %v", b, err)
	}
	if got := names(t, dir); got != "key link" {
		t.Errorf("the folder has %s", got)
	}
}

// TestCreateAtOnce checks that one of several writers creates a file, and that the others find
// its content complete.
func TestCreateAtOnce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	created := make(chan string, 8)
	var running sync.WaitGroup
	for i := range cap(created) {
		running.Go(func() {
			content := strings.Repeat(string('a'+rune(i)), limit)
			err := Create(file, []byte(content))
			if err == nil {
				created <- content
			} else if b, readErr := Read(file, limit, Secret); !errors.Is(err, fs.ErrExist) || readErr != nil || len(b) != limit {
				t.Errorf("got %v, then %d bytes, %v", err, len(b), readErr)
			}
		})
	}
	running.Wait()
	close(created)
	var winners []string
	for content := range created {
		winners = append(winners, content)
	}
	if b, err := Read(file, limit, Secret); len(winners) != 1 || err != nil || string(b) != winners[0] {
		t.Errorf("%d writers have created the file, with %q, %v", len(winners), b, err)
	}
	if got := names(t, dir); got != "key" {
		t.Errorf("the folder has %s", got)
	}
}

// add returns a function that adds a letter.
func add(letter string) func([]byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) { return append(bytes.Clone(old), letter...), nil }
}

// TestRewrite checks that a file is made, keeps its mode and its links, and is not changed when
// there is an error.
func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "names")
	alias := link(t, "names", filepath.Join(dir, "alias"))
	if err := Rewrite(alias, limit, Trusted, add("a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing: got %v", err)
	}
	if err := Rewrite(file, limit, Trusted, add("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Rewrite(alias, limit, Trusted, add("b")); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	for want, change := range map[error]func([]byte) ([]byte, error){
		failed:      func([]byte) ([]byte, error) { return nil, failed },
		ErrTooLarge: add(strings.Repeat("c", limit)),
		nil:         func(old []byte) ([]byte, error) { return old, nil },
	} {
		if err := Rewrite(file, limit, Trusted, change); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	info, err := os.Lstat(file)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o640 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(alias)
	if info, _ := os.Lstat(alias); err != nil || string(b) != "ab" || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("got %q in %v, %v", b, info.Mode(), err)
	}
	if got := names(t, dir); got != "alias names" {
		t.Errorf("the folder has %s", got)
	}
}

// TestRewriteAtOnce checks that no change is lost.
func TestRewriteAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			if err := Rewrite(file, limit, Trusted, add(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if b, err := os.ReadFile(file); err != nil || len(b) != 8 {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestRewriteLocked checks that a lock that stays is an error that says so.
func TestRewriteLocked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	lock := write(t, file+".lock", "", 0o600)
	synctest.Test(t, func(t *testing.T) { // so that the wait takes no time
		err := Rewrite(file, limit, Trusted, add("a"))
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), lock) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("got %v", err)
		}
	})
	if _, err := os.Stat(lock); err != nil {
		t.Error("the lock of another process is gone:", err)
	}
}
