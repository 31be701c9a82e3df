// Command peers compares this library's programs with others, and prints the figures in the form of
// go test -bench.
//
// It floods relays of several kinds in the same network: how many packets arrive, the CPU time of each, and
// the memory of the relay (root). And it has programs read a capture that it makes, which find the
// connections of QUIC in it: how long they take, their CPU time, the most memory, and how many
// connections and names they find.
//
// It goes through all of them once, in random order: tools/bench runs it several times, and makes tables.
// What cannot run is left out, and standard error says why.
//
//	go run ./tools/peers [-run REGEXP] [-time 1s] [-size 100000000]
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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/tools/peers/traffic"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == plainCommand {
		exit(servePlain(os.Stdin, os.Stdout))
	}
	only := flag.String("run", ".", "what to run, by `regexp` over kinds and names, as in bulk/coturn or capture/tshark")
	duration := flag.Duration("time", time.Second, "how long to flood each relay")
	size := flag.Int64("size", 100e6, "`bytes` of the capture")
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
	c := &contest{builder: builder{ctx: ctx, dir: dir, built: make(map[string]error)}, out: os.Stdout, pattern: pattern}
	exit(errors.Join(c.floods(*duration), c.captures(*size), os.RemoveAll(dir)))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// contest runs what the pattern matches.
type contest struct {
	builder
	out     io.Writer
	pattern *regexp.Regexp
}

// floods floods all relays, in each shape.
func (c *contest) floods(d time.Duration) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "peers: no relays: they need root, to make network namespaces")
		return nil
	}
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	for _, s := range []*shape{&bulk, &manyFlows} {
		if err := c.each(s.name, names, func(i int) (string, error) {
			f, err := c.measure(&peers[i], s, d)
			return f.String(), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// captures has all watchers read a capture of some size.
func (c *contest) captures(size int64) error {
	var names []string
	for _, w := range watchers {
		names = append(names, w.name)
	}
	capture := sync.OnceValue(func() (m made) {
		m.file, m.content, m.err = makeCapture(c.dir, size)
		return m
	})
	return c.each("capture", names, func(i int) (string, error) {
		m := capture()
		if m.err != nil {
			return "", m.err
		}
		f, err := watchers[i].watch(&c.builder, m.file)
		return f.report(m.content), err
	})
}

// made is a capture that has been made.
type made struct {
	file    string
	content *traffic.Content
	err     error
}

// each prints the figures of those of a kind that the pattern matches, in random order.
func (c *contest) each(kind string, names []string, measure func(int) (string, error)) error {
	for _, i := range rand.Perm(len(names)) {
		name := kind + "/" + names[i]
		if !c.pattern.MatchString(name) {
			continue
		}
		figures, err := measure(i)
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "peers: %s: %v\n", name, err)
			continue
		}
		fmt.Fprintf(c.out, "BenchmarkPeers/%s 1 %s\n", name, figures)
	}
	return nil
}
