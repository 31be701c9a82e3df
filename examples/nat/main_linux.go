// Command nat runs two peers behind the kernel's NATs, and a relay, in network namespaces
// with delayed links. It prints the path of the connection between the peers over time, and
// how long no packets got through at each migration. It fails if a step does not happen. It
// needs root.
//
//	go run ./examples/nat [-size BYTES] [-delay DURATION]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

var nat = program.Program{
	Name: "nat",
	Does: "runs two peers behind NATs, and a relay, in network namespaces (root)",
	Uses: []program.Use{
		{Args: "", Does: "send 64 MiB in each direction while the path is cut"},
		{Args: "-size 1048576 -delay 50ms", Does: "send 1 MiB over slow links"},
	},
}

func main() {
	size := flag.Int64("size", 64<<20, "`bytes` to send in each direction while the path is cut")
	delay := flag.Duration("delay", 5*time.Millisecond, "time that a packet takes through the core")
	nat.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 0); err != nil {
			return err
		}
		if *size < 0 || *delay < 0 {
			return program.Usagef("-size and -delay must not be negative")
		}
		return run(ctx, *size, *delay)
	})
}

// patience is how long a step may take.
const patience = 30 * time.Second

// The addresses of the hosts on the core.
const (
	relayHost = "198.51.100.2"
	aliceNAT  = "203.0.113.2"
	bobNAT    = "203.0.113.6"
)

// demo is the network and the connection.
type demo struct {
	nettest.Program
	*timeline
	core       *core
	server     *relay.Server
	alice, bob *peer
}

// peer is one end of the connection.
type peer struct {
	name     string
	host     *nettest.Host
	endpoint *p2p.Endpoint
	conn     *p2p.Conn
}

func run(ctx context.Context, size int64, delay time.Duration) (err error) {
	d := &demo{timeline: newTimeline(os.Stdout)}
	defer d.End(&err)
	if err := d.build(delay); err != nil {
		return err
	}
	if err := d.connect(ctx); err != nil {
		return err
	}
	return d.play(ctx, size)
}

// build makes the hosts and the relay.
func (d *demo) build(delay time.Duration) error {
	d.core = newCore(relayHost, delay, func() { d.step("punching", "the first probe is on its way") })
	relayAt := nettest.NewHost(d)
	if err := d.core.join(relayAt, "out", relayHost); err != nil {
		return err
	}
	d.Cleanup(d.core.close)
	for i, nat := range []string{aliceNAT, bobNAT} {
		router, host := nettest.NewHost(d), nettest.NewHost(d)
		if err := d.core.join(router, "out", nat); err != nil {
			return err
		}
		router.NAT(nettest.PortRestricted, "out")
		lan := fmt.Sprintf("192.168.%d.", i+1)
		nettest.Cable(host, "eth0", []string{lan + "2/24"}, router, "in", []string{lan + "1/24"})
		host.Route("0.0.0.0/0", lan+"1")
		p := &peer{name: []string{"alice", "bob"}[i], host: host}
		if i == 0 {
			d.alice = p
		} else {
			d.bob = p
		}
	}
	d.core.run()
	server, err := relay.New(nil, relayAt.Listen(relayHost+":4433"))
	if err != nil {
		return err
	}
	d.server = server
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	d.Cleanup(func() {
		err := server.Close()
		if ended := <-served; !errors.Is(ended, relay.ErrClosed) {
			err = errors.Join(err, ended)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "nat:", err)
		}
	})
	return errors.Join(d.open(d.alice), d.open(d.bob))
}

// open opens a peer's endpoint.
func (d *demo) open(p *peer) error {
	at, err := p2p.ParseRelay(d.server.URL(""))
	if err != nil {
		return err
	}
	conf := &p2p.Config{Relay: at, DisablePortMapping: true}
	err = p.host.Run(func() (err error) {
		p.endpoint, err = p2p.NewEndpoint(conf)
		return err
	})
	if err == nil {
		d.Cleanup(func() { _ = p.endpoint.Close() })
	}
	return err
}

// connect has Alice dial and Bob answer, each in the network namespace of its host, because
// the endpoint watches the addresses of the namespace.
func (d *demo) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.begin()
	answered := make(chan error, 1)
	deliver := func(_ context.Context, o p2p.Offer) error {
		d.step("offer", fmt.Sprintf("%d bytes of text", len(o.String())))
		err := d.bob.host.Run(func() (err error) {
			d.bob.conn, err = d.bob.endpoint.AcceptOffer(ctx, o)
			return err
		})
		answered <- err
		return err
	}
	err := d.alice.host.Run(func() (err error) {
		d.alice.conn, err = d.alice.endpoint.Dial(ctx, d.bob.endpoint.ID(), &p2p.DialConfig{Deliver: deliver})
		return err
	})
	if err != nil {
		return err
	}
	d.step("relay up", "the handshake is done")
	return <-answered
}
