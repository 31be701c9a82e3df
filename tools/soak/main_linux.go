// Command soak has many endpoints connect, exchange data and leave, through a relay with
// faults of the network and two attackers: in one stage the relay's Go loop forwards, and in
// the other the XDP program. Each host is a network namespace. Soak compares the transferred
// data, and the resources of the process and the kernel before and after. It prints a table,
// and fails if a row is wrong. It needs root.
//
//	go run ./tools/soak [-duration DURATION] [-endpoints N] [-stage loop|xdp|both]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// options are the values of the flags.
type options struct {
	endpoints int           // half of them dial the other half
	duration  time.Duration // of each stage
	bytes     int           // of each transfer, each way
	every     time.Duration // between two faults
	attack    int           // packets a second of the flood
	bodies    int           // unfinished requests at a time
	settle    time.Duration // at most, until all resources are released
	memory    int           // bytes that the heap may have grown by
	seed      uint64
}

func main() {
	var o options
	flag.IntVar(&o.endpoints, "endpoints", 200, "`number` of endpoints, half of which dial")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long each stage lasts")
	flag.IntVar(&o.bytes, "bytes", 128<<10, "`bytes` of each transfer, each way")
	flag.DurationVar(&o.every, "every", 0, "time between two faults of the network (0: short enough for all of them)")
	flag.IntVar(&o.attack, "attack", 500, "`packets` a second of the flood")
	flag.IntVar(&o.bodies, "bodies", 256, "`number` of unfinished requests at a time")
	flag.DurationVar(&o.settle, "settle", 90*time.Second, "how long releasing all resources may take")
	flag.IntVar(&o.memory, "memory", 8<<20, "`bytes` that the heap may have grown by")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the order of the faults")
	stage := flag.String("stage", "both", "loop, xdp, or both")
	flag.Parse()
	if o.every == 0 { // there are eight, each of which takes a moment
		o.every = max(o.duration/8-2*outage, outage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, &o, *stage)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run runs the stages and prints their results.
func run(ctx context.Context, o *options, which string) (ok bool, err error) {
	stages := map[string][]string{"loop": {"loop"}, "xdp": {"xdp"}, "both": {"loop", "xdp"}}[which]
	if stages == nil || o.endpoints < 2 || o.attack < 1 || o.bodies < 1 || o.every <= 0 {
		return false, fmt.Errorf("invalid flags: -stage %q, -endpoints %d, -attack %d, -bodies %d, -every %v",
			which, o.endpoints, o.attack, o.bodies, o.every)
	}
	h := new(hosts)
	defer h.End(&err)
	h.build()
	ok = true
	for _, name := range stages {
		r, err := play(ctx, h, o, name)
		if err != nil {
			return false, fmt.Errorf("stage %s: %w", name, err)
		}
		r.print(os.Stdout)
		ok = ok && r.ok()
	}
	return ok, nil
}

// hosts are the hosts of all stages.
type hosts struct {
	nettest.Program
	relay, mallory *nettest.Host
	sides          [2]*nettest.Host
}
