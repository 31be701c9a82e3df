package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/quicway/quicway/tools/vm/plan"
)

// report is the result of a virtual machine.
type report struct {
	kernel  string
	rows    []row // of the table of stages
	results int   // packages whose tests ended
	failed  int   // packages whose tests failed
	last    []string
}

// lastLines is how many lines of the output last has.
const lastLines = 80

// runKernel boots a kernel in a virtual machine, which runs the tests of all packages.
func runKernel(ctx context.Context, o *options, a arch, k *kernel) (*report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	folder, err := os.MkdirTemp("", "quicway-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	image, err := buildImage(ctx, o, k, folder)
	if err != nil {
		return nil, err
	}
	r, err := boot(ctx, o, a, k, image)
	if err != nil {
		return nil, err
	}
	if r.results < len(o.packages) {
		return nil, fmt.Errorf("the virtual machine ended before its tests; the end of its output:\n%s", strings.Join(r.last, "\n"))
	}
	return r, nil
}

// boot runs a virtual machine until it powers itself off.
func boot(ctx context.Context, o *options, a arch, k *kernel, image string) (*report, error) {
	args := append(a.qemu[1:len(a.qemu):len(a.qemu)], "-smp", fmt.Sprint(o.cpus), "-m", "3000", "-nographic", "-no-reboot",
		"-kernel", filepath.Join(k.folder, "boot", a.image+"-"+k.release), "-initrd", image,
		"-append", "console="+a.serial+" panic=-1 quiet loglevel=1")
	cmd := exec.CommandContext(ctx, a.qemu[0], args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: install %s", err, a.qemu[0])
	}
	r := &report{kernel: k.release}
	err = r.read(out, o.verbose)
	return r, errors.Join(err, cmd.Wait())
}

// printed matches the lines that are printed without -v: results, and messages of tests with
// their indented further lines.
var printed = regexp.MustCompile(`^(=== FAIL|--- FAIL|\s*--- (FAIL|SKIP)|panic|fatal|FAIL|init:|.*_test\.go:|        )`)

// read reads the output of a virtual machine.
func (r *report) read(out io.Reader, verbose bool) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		r.last = append(r.last[max(0, len(r.last)-lastLines+1):], line)
		if result, ok := strings.CutPrefix(line, plan.Result); ok {
			r.results++
			if !strings.HasSuffix(result, " passed") {
				r.failed++
			}
			r.print(result)
			continue
		}
		if row, ok := parseRow(line); ok {
			r.rows = append(r.rows, row)
		}
		if verbose || printed.MatchString(line) {
			r.print(line)
		}
	}
	return lines.Err()
}

// print prints a line, after the kernel.
func (r *report) print(line string) { fmt.Printf("%s: %s\n", r.kernel, line) }
