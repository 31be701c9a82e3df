package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpen checks the size of what is sent, which is not known of an empty file: those in /proc
// seem to be empty.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"file": "content", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int64{"file": 7, "empty": -1, os.DevNull: -1} {
		if name != os.DevNull {
			name = filepath.Join(dir, name)
		}
		in, size, err := open(name)
		if err != nil || size != want {
			t.Errorf("%s: got size %d, %v, want %d", name, size, err, want)
			continue
		}
		in.Close()
	}
	if _, _, err := open(dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
