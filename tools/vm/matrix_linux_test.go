package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMatrix checks that lines of kernels that were not run stay, and others are replaced.
func TestMatrix(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kernels.md")
	old := "text\n" + begin + head +
		"| 6.12 | amd64 | with | 1 | 2 | 3 | 4 | seen |\n" + "| 6.1 | s390x | with | 5 | 6 | 7 | 8 | no TCX |\n" + end + "more\n"
	if err := os.WriteFile(file, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, line := range []string{
		"    stages_linux_test.go:1: stages: 6.12.117+deb12 amd64 with relay relay - 2250",
		"stages: 6.12.117+deb12 amd64 with monitor monitor yes 81133",
		"stages: 6.12.117+deb12 amd64 with relay+quota+monitor relay+quota yes 20071",
		"stages: 6.12.117+deb12 amd64 with quota - - 0",
		"stages: 6.1.0-56 amd64 without relay - - 0",
		"stages: too few words",
		"stages: x amd64 with relay relay - 2250",
	} {
		if r, ok := parseRow(line); ok {
			rows = append(rows, r)
		}
	}
	if err := writeMatrix(file, rows); err != nil {
		t.Fatal(err)
	}
	want := "text\n" + begin + head +
		"| 6.1 | amd64 | without | refused |  |  |  | - |\n" +
		"| 6.12 | amd64 | with | 2250 | refused | 81133 | relay+quota only | seen |\n" +
		"| 6.1 | s390x | with | 5 | 6 | 7 | 8 | no TCX |\n" + end + "more\n"
	if got, err := os.ReadFile(file); string(got) != want || err != nil {
		t.Errorf("got\n%s\nwant\n%s(%v)", got, want, err)
	}
}
