// Command peers floods relays of several kinds in the same network, and prints for each, in the form
// of go test -bench, how many packets arrive, the CPU time of each, and the memory of the relay. It
// goes through all of them once, in random order: tools/bench runs it several times, and makes tables.
// What cannot run is left out, and standard error says why.
//
//	go run ./tools/peers [-run REGEXP] [-time 1s]
//
// Nothing of a peer is part of this module: it is a program that is installed, or one of the modules
// in the folders of this one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == plainCommand {
		exit(servePlain(os.Stdin, os.Stdout))
	}
	only := flag.String("run", ".", "what to run, by `regexp` over shapes and names, as in bulk/coturn")
	duration := flag.Duration("time", time.Second, "how long to flood each")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		exit(err)
	}
	err = errors.Join(run(ctx, os.Stdout, dir, pattern, *duration), os.RemoveAll(dir))
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures what the pattern matches, until ctx is done. Programs are built in dir.
func run(ctx context.Context, out io.Writer, dir string, pattern *regexp.Regexp, d time.Duration) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces")
	}
	for _, s := range []*shape{&bulk, &manyFlows} {
		for _, i := range rand.Perm(len(peers)) {
			p := &peers[i]
			name := s.name + "/" + p.name
			if !pattern.MatchString(name) {
				continue
			}
			f, err := measure(ctx, dir, p, s, d)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "peers: %s: %v\n", name, err)
				continue
			}
			fmt.Fprintf(out, "BenchmarkPeers/%s 1 %s\n", name, f)
		}
	}
	return nil
}
