package quicway_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestFileSizes checks that nobody has committed a program that they have built, or another large
// file.
func TestFileSizes(t *testing.T) {
	const most = 1 << 20
	names, err := exec.CommandContext(t.Context(), "git", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("this is no repository of git:", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		info, err := os.Lstat(name)
		if os.IsNotExist(err) {
			continue // it is being removed
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > most {
			t.Errorf("%s has %d bytes, more than %d: git rm it if it can be built", name, info.Size(), most)
		}
	}
}
