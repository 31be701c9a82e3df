//go:build unix

// Command relaydemo kills the relay that carries a connection, again and again, and prints
// for how long the connection was silent. Then it stops each relay in turn while bytes are
// transferred through it. The relays are processes of their own, which have one secret. The
// peers have several connections; one of them sends a few bytes each 20 ms, whose answers
// show the silence. It fails if a connection is lost, or a byte.
//
//	go run ./tools/relaydemo [-relays N] [-kills N] [-drains N] [-connections N] [-rate BYTES] [-pause DURATION] [-v]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	if isRelay() {
		exit(serveRelay())
	}
	o := options{out: os.Stdout}
	flag.IntVar(&o.relays, "relays", 3, "how many relays there are")
	flag.IntVar(&o.kills, "kills", 6, "how often to kill a relay")
	flag.IntVar(&o.drains, "drains", 3, "how often to stop a relay")
	flag.IntVar(&o.connections, "connections", 4, "how many connections transfer bytes besides")
	flag.IntVar(&o.rate, "rate", 1<<20, "`bytes` per second that each of them transfers in both directions")
	flag.DurationVar(&o.pause, "pause", 6*time.Second, "time between a restart and the next kill; the peers avoid a relay that has died for 5s")
	flag.BoolVar(&o.verbose, "v", false, "log what endpoints and relays do")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, &o)
	if err == nil {
		result.print(o.out)
		err = result.check()
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "relaydemo:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options has the flags.
type options struct {
	relays, kills, drains, connections, rate int
	pause                                    time.Duration
	verbose                                  bool
	out                                      io.Writer
}

// result is what happened.
type result struct {
	kills, drains []time.Duration // the silence of each
	lost          []error         // one for each connection that was lost
	wrong         []error         // one for each transfer that is not right
	bytes         int64           // that were transferred, in each direction
}

// run starts relays and connections, and lets the relays die and stop in turn.
func run(ctx context.Context, o *options) (*result, error) {
	relays, err := startRelays(o.relays, o.verbose)
	if err != nil {
		return nil, err
	}
	defer relays.close()
	p, err := newPeers(relays.urls(), o.verbose)
	if err != nil {
		return nil, err
	}
	defer p.close()
	meter, err := p.startPings(ctx)
	if err != nil {
		return nil, err
	}
	var loads []*load
	for range o.connections {
		l, err := p.startLoad(ctx, o.rate)
		if err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	s := scene{ctx: ctx, options: o, relays: relays, meter: meter, began: time.Now()}
	go s.printPaths(p.pinging)
	var out result
	if out.kills, err = s.repeat(o.kills, "kill", relays.kill); err != nil {
		return nil, err
	}
	if out.drains, err = s.repeat(o.drains, "stop", relays.stop); err != nil {
		return nil, err
	}
	for _, l := range loads {
		n, err := l.finish(ctx)
		out.bytes += n
		if err != nil {
			out.wrong = append(out.wrong, err)
		}
	}
	out.lost = p.lost()
	return &out, ctx.Err()
}

// check returns an error if a connection or a byte was lost.
func (r *result) check() error {
	if len(r.lost) > 0 || len(r.wrong) > 0 {
		return fmt.Errorf("%d connections lost, %d transfers not right: %v %v", len(r.lost), len(r.wrong), r.lost, r.wrong)
	}
	return nil
}

// print prints the figures.
func (r *result) print(out io.Writer) {
	printSilence(out, "killed", r.kills)
	printSilence(out, "stopped", r.drains)
	fmt.Fprintf(out, "%d connections lost; %d bytes there and back, %d transfers not right\n", len(r.lost), r.bytes, len(r.wrong))
}

// printSilence prints how long the connection was silent each time that something happened to a
// relay.
func printSilence(out io.Writer, what string, all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	fmt.Fprintf(out, "%d relays %s: silence median %v, longest %v\n", len(all), what,
		all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
}
