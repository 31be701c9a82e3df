// Monitor shows the QUIC connections in a capture, or on this host's interfaces
// (Linux, root).
//
//	go run ./examples/monitor FILE.pcap
//	go run ./examples/monitor -i eth0,eth1
//	go run ./examples/monitor -i eth0,eth1 -mode xdp
//	tcpdump -w - udp | go run ./examples/monitor -
//	go run ./examples/monitor -format zeek -filter 'net 192.0.2.0/24 and not name .example.org' FILE.pcap
//
// With -mode xdp the kernel counts the packets of known connections and reports only
// the others to the program.
//
// It shows the connections of interfaces live if it runs in a terminal, and prints a table at
// the end otherwise. With -json, or another -format, it prints a line for each connection, in
// JSON also for each event. With -http it serves a page that shows the connections live:
//
//	go run ./examples/monitor -i eth0 -http 127.0.0.1:8080
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/examples/monitor/internal/terminal"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/monitor/eve"
	"github.com/quicway/quicway/monitor/zeek"
	"github.com/quicway/quicway/xdp"
)

// gcPercent is the growth of the heap between two garbage collections, unless the environment sets GOGC. A
// monitor keeps most of what it makes, so that half of Go's default saves a
// fifth of its memory and more, for about a tenth more time.
const gcPercent = 50

// messages is standard error, which must not write into the live view.
var messages terminal.Log

var monitorProgram = program.Program{
	Name: "monitor",
	Does: "shows the QUIC connections in a capture, or on this host's interfaces",
	Uses: []program.Use{
		{Args: "FILE.pcap", Does: "print a table of the connections in a capture (- is the standard input)"},
		{Args: "-i eth0,eth1", Does: "show the connections on interfaces (Linux, root), live in a terminal"},
		{Args: "-i eth0 -http 127.0.0.1:8080", Does: "serve a page that shows them"},
		{Args: "-format zeek -filter 'net 192.0.2.0/24' FILE.pcap", Does: "write Zeek's quic.log"},
	},
}

func main() {
	interfaces := flag.String("i", "", "`interfaces` to capture on, separated by commas, or any for all (Linux, CAP_NET_RAW)")
	mode := flag.String("mode", "capture", "how to read interfaces: capture (packet sockets) or xdp (the kernel counts known connections; needs CAP_BPF and CAP_NET_ADMIN)")
	format := flag.String("format", "", "what to print: table (the default without a live view), json (JSON lines), zeek or zeek-json (Zeek's quic.log), or eve (Suricata's EVE)")
	asJSON := flag.Bool("json", false, "short for -format json")
	address := flag.String("http", "", "`address` to serve a live page on, such as :8080; without a host it is on loopback")
	limit := flag.Int("max", 0, "limit of connections to keep (0: the default)")
	var filter *monitor.Filter
	parseFilter := func(text string) (err error) {
		filter, err = monitor.ParseFilter(text)
		return err
	}
	flag.Func("filter", "`expression` that selects connections, such as \"net 192.0.2.0/24 and not name .example.org\"", parseFilter)
	flag.Func("z", "short for -filter", parseFilter)
	monitorProgram.Main(func(ctx context.Context, args []string) error {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(gcPercent)
		}
		if *asJSON {
			*format = "json"
		}
		return run(ctx, os.Stdout, *interfaces, *mode, args, *format, *address, &monitor.Config{MaxConnections: *limit, Filter: filter})
	})
}

// run reads the source that the flags name and reports its connections to out.
func run(ctx context.Context, out io.Writer, interfaces, mode string, args []string, format, address string, conf *monitor.Config) (err error) {
	writer, err := writerOf(format, out)
	if err != nil {
		return err
	}
	source, end, err := open(interfaces, mode, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	m, err := monitor.New(source, conf)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	if tty, ok := out.(*os.File); ok && interfaces != "" && format == "" && address == "" && terminal.Usable(os.Stdin, tty) {
		return terminal.Run(ctx, m, os.Stdin, tty, &messages)
	}
	report := newReport(out, writer)
	running, stop := context.WithCancel(ctx)
	defer stop()
	wait := func() error { return nil }
	if address != "" {
		if wait, err = serve(running, m, address); err != nil {
			return errors.Join(err, source.Close())
		}
	}
	events := m.Events(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events {
			if report.event(&e); report.failed != nil {
				stop() // what follows would be lost as well
			}
		}
	}()
	err = m.Run(running)
	<-done
	if errors.Is(err, context.Canceled) {
		err = nil // Ctrl-C: report what was seen
	}
	return errors.Join(err, wait(), report.finish(m))
}

// open opens the source that the command line names. Call end after closing the
// source.
func open(interfaces, mode string, args []string) (source monitor.Source, end func() error, err error) {
	end = func() error { return nil }
	switch {
	case mode != "capture" && mode != "xdp":
		err = program.Usagef("-mode %q is neither capture nor xdp", mode)
	case interfaces == "" && len(args) == 1:
		source, err = monitor.OpenFile(args[0])
	case interfaces == "any" && mode == "xdp":
		err = program.Usagef("-mode xdp needs names of interfaces, not any")
	case interfaces == "any" && len(args) == 0:
		source, err = monitor.Capture()
	case interfaces != "" && len(args) == 0 && mode == "xdp":
		return attach(strings.Split(interfaces, ","))
	case interfaces != "" && len(args) == 0:
		source, err = monitor.Capture(strings.Split(interfaces, ",")...)
	default:
		err = program.Usagef("give one capture file, or interfaces with -i")
	}
	return source, end, err
}

// attach attaches an XDP program to interfaces. The function that it returns closes the
// program.
func attach(interfaces []string) (monitor.Source, func() error, error) {
	program, err := xdp.Load(&xdp.Config{
		Stages: []xdp.Stage{xdp.MonitorStage},
		Logger: slog.New(slog.NewTextHandler(&messages, nil)),
	})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range interfaces {
		if _, err := program.Attach(name, xdp.Auto); err != nil {
			return nil, nil, errors.Join(err, program.Close())
		}
	}
	source, err := monitor.Kernel(program)
	if err != nil {
		return nil, nil, errors.Join(err, program.Close())
	}
	return source, program.Close, nil
}

// report prints connections and events.
type report struct {
	out    io.Writer
	writer monitor.Writer // nil: print a table
	table  table          // connections that the monitor no longer keeps, and at the end all
	more   int            // the number of further ones, beyond maxClosed
	failed error          // the first error of a write
}

// maxClosed is the limit of closed connections in the table.
const maxClosed = 10000

func newReport(out io.Writer, writer monitor.Writer) *report {
	return &report{out: out, writer: writer}
}

// writerOf returns the writer of a format, or nil for the table.
func writerOf(format string, out io.Writer) (monitor.Writer, error) {
	switch format {
	case "", "table":
		return nil, nil
	case "json":
		return monitor.NewEncoder(out), nil
	case "zeek":
		return zeek.NewWriter(out), nil
	case "zeek-json":
		return zeek.NewJSONWriter(out), nil
	case "eve":
		return eve.NewWriter(out), nil
	}
	return nil, program.Usagef("-format %q is none of table, json, zeek, zeek-json and eve", format)
}

// event reports an event. The line of a connection is written when it is closed.
func (r *report) event(e *monitor.Event) {
	switch {
	case r.failed != nil:
	case r.writer != nil:
		if r.failed = r.writer.Event(e); r.failed == nil && e.Kind == monitor.EventClosed {
			r.failed = r.writer.Connection(&e.Connection)
		}
	case e.Kind != monitor.EventClosed:
	case len(r.table.lines) < maxClosed:
		r.table.add(&e.Connection)
	default:
		r.more++
	}
}

// finish reports the connections that the monitor still keeps, and the counters.
func (r *report) finish(m *monitor.Monitor) error {
	if r.writer == nil {
		return r.printTable(m)
	}
	for c := range m.Tracker().ByNumber() { // one at a time, for there may be very many
		if r.failed == nil {
			r.failed = r.writer.Connection(&c)
		}
	}
	stats := m.Stats()
	if r.failed == nil {
		r.failed = r.writer.Stats(&stats)
	}
	if r.failed == nil {
		r.failed = r.writer.Close()
	}
	return r.failed
}

// printTable prints the table.
func (r *report) printTable(m *monitor.Monitor) error {
	for c := range m.Tracker().ByNumber() {
		r.table.add(&c)
	}
	stats := m.Stats()
	out := bufio.NewWriter(r.out)
	if r.more > 0 {
		fmt.Fprintf(out, "%d closed connections are not in this table\n", r.more)
	}
	r.table.print(out)
	fmt.Fprintf(out, "%d connections; %d packets, %d datagrams, %d of them QUIC; %d packets lost\n",
		len(r.table.lines), stats.Packets, stats.Datagrams, stats.Tracked, stats.SourceDropped)
	return out.Flush()
}
