package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// builder builds programs, each of them once.
type builder struct {
	ctx   context.Context  // ends all programs
	dir   string           // for programs, and what they write
	built map[string]error // folders, and why a program has not been built
}

// compile builds a program of this module, or of another one in a folder, and returns its file.
func (b *builder) compile(folder string) (string, error) {
	file := filepath.Join(b.dir, filepath.Base(folder))
	if _, ok := b.built[folder]; !ok {
		out, err := exec.CommandContext(b.ctx, "go", "build", "-C", folder, "-o", file, ".").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build %s: %w: %s", folder, err, out)
		}
		b.built[folder] = err
	}
	return file, b.built[folder]
}
