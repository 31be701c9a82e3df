// Monitor shows the QUIC connections in a capture, or on this host's interfaces
// (Linux, root).
//
//	go run ./examples/monitor FILE.pcap
//	go run ./examples/monitor -i eth0,eth1
//	tcpdump -w - udp | go run ./examples/monitor -
//
// It prints a table at the end, or with -json a line about each connection and
// event. With -http it serves a page that shows them as they come:
//
//	go run ./examples/monitor -i eth0 -http 127.0.0.1:8080
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/quicway/quicway/monitor"
)

func main() {
	interfaces := flag.String("i", "", "`interfaces` to capture on, with commas between, or any (Linux, CAP_NET_RAW)")
	asJSON := flag.Bool("json", false, "print JSON lines")
	address := flag.String("http", "", "`address` to serve a live page on, as 127.0.0.1:8080")
	limit := flag.Int("max", 0, "connections to keep (0: the default)")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: monitor [flags] FILE.pcap | monitor [flags] -i INTERFACE[,INTERFACE]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *interfaces, flag.Args(), *asJSON, *address, *limit); err != nil {
		fmt.Fprintln(os.Stderr, strings.TrimPrefix(err.Error(), "monitor: "))
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, interfaces string, args []string, asJSON bool, address string, limit int) error {
	source, err := open(interfaces, args)
	if err != nil {
		return err
	}
	m, err := monitor.New(source, &monitor.Config{MaxConnections: limit})
	if err != nil {
		return errors.Join(err, source.Close())
	}
	report := newReport(out, asJSON)
	wait := func() error { return nil }
	if address != "" {
		if wait, err = serve(ctx, m, address); err != nil {
			return errors.Join(err, source.Close())
		}
	}
	events := m.Events(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			report.event(&e)
		}
	}()
	err = m.Run(ctx)
	<-done
	if errors.Is(err, context.Canceled) {
		err = nil // Ctrl-C: what was seen is shown
	}
	return errors.Join(err, wait(), report.finish(m))
}

// open opens what the command line says.
func open(interfaces string, args []string) (monitor.Source, error) {
	switch {
	case interfaces == "" && len(args) == 1:
		return monitor.OpenFile(args[0])
	case interfaces == "any" && len(args) == 0:
		return monitor.Capture()
	case interfaces != "" && len(args) == 0:
		return monitor.Capture(strings.Split(interfaces, ",")...)
	}
	return nil, errors.New("name one capture file, or interfaces with -i; -h says more")
}

// report prints what was seen.
type report struct {
	out    io.Writer
	json   *monitor.Encoder     // nil: a table
	closed []monitor.Connection // that are no longer kept
	failed error
}

// maxClosed bounds the connections that the table has besides those that are
// kept.
const maxClosed = 10000

func newReport(out io.Writer, asJSON bool) *report {
	r := &report{out: out}
	if asJSON {
		r.json = monitor.NewEncoder(out)
	}
	return r
}

// event takes an event. A connection has one line in the end, so that of one
// which is closed is written now.
func (r *report) event(e *monitor.Event) {
	switch {
	case r.json != nil:
		r.failed = errors.Join(r.failed, r.json.Event(e))
		if e.Kind == monitor.EventClosed {
			r.failed = errors.Join(r.failed, r.json.Connection(&e.Connection))
		}
	case e.Kind == monitor.EventClosed && len(r.closed) < maxClosed:
		r.closed = append(r.closed, e.Connection)
	}
}

// finish prints the connections that are kept.
func (r *report) finish(m *monitor.Monitor) error {
	kept := slices.SortedFunc(m.Connections(), func(a, b monitor.Connection) int {
		return int(int64(a.Number) - int64(b.Number))
	})
	stats := m.Stats()
	if r.json == nil {
		return printTable(r.out, append(r.closed, kept...), &stats)
	}
	for i := range kept {
		r.failed = errors.Join(r.failed, r.json.Connection(&kept[i]))
	}
	return errors.Join(r.failed, r.json.Stats(&stats))
}
