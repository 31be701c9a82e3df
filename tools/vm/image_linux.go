package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/quicway/quicway/tools/vm/plan"
)

// buildImage builds the initial RAM file system of a virtual machine in a folder, with the
// kernel modules, the tests and the init, and returns the file.
func buildImage(ctx context.Context, o *options, k *kernel, folder string) (string, error) {
	root := filepath.Join(folder, "root")
	if err := os.MkdirAll(filepath.Join(root, "modules"), 0o755); err != nil {
		return "", err
	}
	var p plan.Plan
	for _, file := range k.moduleFiles(ctx) {
		name, err := copyModule(ctx, file, filepath.Join(root, "modules"))
		if err != nil {
			return "", err
		}
		p.Modules = append(p.Modules, "/modules/"+name)
	}
	for _, pkg := range o.packages {
		test, err := buildTest(ctx, o, pkg, root)
		if err != nil {
			return "", err
		}
		p.Tests = append(p.Tests, test)
	}
	if err := compile(ctx, o, "build", filepath.Join(root, "init"), "./tools/vm/init"); err != nil {
		return "", err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(root, plan.File), text, 0o644); err != nil {
		return "", err
	}
	image := filepath.Join(folder, "initrd")
	pack := exec.CommandContext(ctx, "sh", "-c", `find . | cpio -o -H newc --quiet >"$0"`, image)
	pack.Dir = root
	return image, loud(pack)
}

// copyModule copies a kernel module into a folder, decompresses it if necessary, and returns
// its name.
func copyModule(ctx context.Context, file, folder string) (string, error) {
	name, packed := strings.CutSuffix(filepath.Base(file), ".xz")
	if !packed {
		return name, loud(exec.CommandContext(ctx, "cp", file, folder))
	}
	return name, loud(exec.CommandContext(ctx, "sh", "-c", `xz -dc "$0" >"$1"`, file, filepath.Join(folder, name)))
}

// buildTest compiles the tests of a package, and copies its testdata.
func buildTest(ctx context.Context, o *options, pkg, root string) (plan.Test, error) {
	name := strings.TrimPrefix(pkg, "./")
	folder := filepath.Join(root, "src", name)
	t := plan.Test{
		Package: name,
		Binary:  filepath.Join("/src", name, "t.test"),
		Args:    []string{"-test.v", "-test.run", o.run, "-test.count", fmt.Sprint(o.count), "-test.timeout", fmt.Sprint(o.timeout)},
	}
	if o.skip != "" {
		t.Args = append(t.Args, "-test.skip", o.skip)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return t, err
	}
	if err := compile(ctx, o, "test", filepath.Join(folder, "t.test"), pkg, "-c"); err != nil {
		return t, err
	}
	data := filepath.Join(name, "testdata")
	if _, err := os.Stat(data); err != nil {
		return t, nil
	}
	return t, loud(exec.CommandContext(ctx, "cp", "-r", data, folder))
}

// compile runs go build or go test for the processor of the virtual machine.
func compile(ctx context.Context, o *options, verb, out, pkg string, flags ...string) error {
	args := append([]string{verb, "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+o.arch)
	return loud(cmd)
}
