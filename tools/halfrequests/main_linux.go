// Command halfrequests opens many control connections to a relay, from many source
// addresses and without a token, with requests whose bodies never end. It prints how much
// memory they cost the relay, which runs in another process, and how long they live.
// Meanwhile two honest peers exchange messages through the relay. It fails if the relay
// needs too much memory, keeps connections for too long, or a message is late. It does not
// need root.
//
//	go run ./tools/halfrequests [-connections N] [-bodies N] [-memory BYTES] [-patience DURATION]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the values of the flags.
type options struct {
	connections int
	each        int // connections of a source
	bodies      int // of a connection
	memory      int // bytes that the relay may need
	patience    time.Duration
	late        time.Duration
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == asRelay {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "halfrequests: relay:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.connections, "connections", 10_000, "`number` of connections")
	flag.IntVar(&o.each, "each", 100, "`number` of connections from one source address")
	flag.IntVar(&o.bodies, "bodies", 16, "`number` of unfinished requests on each connection")
	flag.IntVar(&o.memory, "memory", 256<<20, "`bytes` that the relay may need")
	flag.DurationVar(&o.patience, "patience", time.Minute, "how long the relay may keep idle connections")
	flag.DurationVar(&o.late, "late", 10*time.Second, "how long a message of honest peers may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "halfrequests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	relay, err := startRelay(ctx)
	if err != nil {
		return err
	}
	defer relay.stop()
	talk, err := startTalk(ctx, relay)
	if err != nil {
		return err
	}
	defer talk.stop()
	before, err := relay.memory()
	if err != nil {
		return err
	}
	peak := relay.watchMemory(ctx)
	crowd := newCrowd(relay.Addr)
	defer crowd.close()
	begin := time.Now()
	crowd.come(ctx, o)
	came := time.Since(begin)
	held, begin := crowd.alive(), time.Now()
	for crowd.alive() > 0 && time.Since(begin) < o.patience && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("%d connections with %d half requests each were opened within %v; the relay closed %d of them meanwhile to make room\n",
		crowd.opened, o.bodies, came.Round(time.Second), crowd.opened-held)
	fmt.Printf("the relay needed %d MiB at most, %d MiB before\n", peak()>>20, before>>20)
	fmt.Printf("%d connections are left %v after the last one came\n", crowd.alive(), time.Since(begin).Round(time.Second))
	messages, slowest, err := talk.result()
	fmt.Printf("honest peers: %d messages went through the relay and back, the slowest within %v; errors: %v\n", messages, slowest.Round(time.Millisecond), err)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case crowd.opened < o.connections*9/10:
		return fmt.Errorf("only %d connections were opened: %v", crowd.opened, crowd.failure)
	case crowd.alive() > 0:
		return fmt.Errorf("connections are left after %v", o.patience)
	case peak() > o.memory:
		return fmt.Errorf("the relay needed more than %d MiB", o.memory>>20)
	case messages == 0 || slowest > o.late:
		return fmt.Errorf("a message of honest peers took longer than %v, or none came", o.late)
	}
	return nil
}
