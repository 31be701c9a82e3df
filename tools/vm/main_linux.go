// Command vm runs the tests of packages as root on other kernels and other processors
// than those of this machine. It boots Debian's kernels in qemu, without KVM. It needs
// apt and qemu, which .ci/run installs.
//
//	go run ./tools/vm [-arch amd64] [-kernel 6.1,6.12] [-run REGEXP] PACKAGE...
//
// It prints the output of failed and skipped tests, and one line for each package and
// kernel; each line begins with the kernel. It fails if a test fails, or if a test is skipped because the kernel lacks
// something.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are the flags and arguments.
type options struct {
	arch     string
	kernels  []string
	run      string
	skip     string
	count    int
	timeout  time.Duration
	cpus     int
	cache    string
	verbose  bool
	matrix   string
	packages []string
}

func main() {
	o := parseFlags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runAll(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func parseFlags() *options {
	o := &options{}
	var kernels string
	flag.StringVar(&o.arch, "arch", "amd64", "`processor`: amd64, arm64 or s390x")
	flag.StringVar(&kernels, "kernel", "6.1,6.12", "`versions` of Debian's kernel")
	flag.StringVar(&o.run, "run", ".", "`regexp` of the tests to run")
	flag.StringVar(&o.skip, "skip", "", "`regexp` of the tests not to run")
	flag.IntVar(&o.count, "count", 1, "how often to run each test")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "time limit for a virtual machine")
	flag.IntVar(&o.cpus, "cpus", 2, "number of processors of a virtual machine")
	flag.StringVar(&o.cache, "cache", "", "`folder` for kernels (default: the user's cache)")
	flag.StringVar(&o.matrix, "matrix", "", "`file` with the table of stages and kernels to update; adds a row for this kernel")
	flag.BoolVar(&o.verbose, "v", false, "print all output of the virtual machines")
	flag.Parse()
	o.kernels = strings.Split(kernels, ",")
	o.packages = flag.Args()
	return o
}

func runAll(ctx context.Context, o *options) error {
	if len(o.packages) == 0 {
		return fmt.Errorf("no packages to test")
	}
	arch, ok := arches[o.arch]
	if !ok {
		return fmt.Errorf("unknown processor %q: want amd64, arm64 or s390x", o.arch)
	}
	if o.cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		o.cache = base + "/quicway-vm"
	}
	table, failed, err := runKernels(ctx, o, arch)
	if err != nil {
		return err
	}
	if o.matrix != "" {
		rows, err := hostRows(ctx)
		if err != nil {
			return err
		}
		table = append(table, rows...)
		if err := writeMatrix(o.matrix, table); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the runs failed", failed)
	}
	return nil
}

// runKernels tests on all kernels at the same time.
func runKernels(ctx context.Context, o *options, a arch) (table []row, failed int, err error) {
	g, ctx := errgroup.WithContext(ctx)
	reports := make([]*report, len(o.kernels))
	for i, version := range o.kernels {
		k, err := a.fetchKernel(ctx, o.cache, version)
		if err != nil {
			return nil, 0, errors.Join(fmt.Errorf("kernel %s: %w", version, err), g.Wait())
		}
		g.Go(func() (err error) {
			if reports[i], err = runKernel(ctx, o, a, k); err != nil {
				return fmt.Errorf("kernel %s: %w", version, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	for _, r := range reports {
		table = append(table, r.rows...)
		failed += r.failed
	}
	return table, failed, nil
}
