package main

import (
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/test/livetest"
)

// peer is a kind of relay.
type peer struct {
	name string
	// start starts the relay on b, and opens its flows.
	start func(b *bed) error
	// xdp says that it forwards in XDP programs, which do not complete checksums, and
	// get no trains.
	xdp bool
}

// peers are all relays, each in a file of its own.
var peers = []peer{
	{name: "routed", start: startRouting},
	{name: "quicway-go", start: startQuicway()},
	{name: "quicway-generic", start: startQuicway("-xdp", "eth0,eth1", "-xdp-mode", "generic"), xdp: true},
	{name: "quicway-native", start: startQuicway("-xdp", "eth0,eth1", "-xdp-mode", "native"), xdp: true},
	{name: "plain", start: startPlain},
	{name: "tailscale", start: startTailscale},
	{name: "coturn", start: startCoturn},
	{name: "pion", start: startPion},
	{name: "nginx", start: startNginx},
	{name: "haproxy", start: startHAProxy},
}

// shape is what a flood is like.
type shape struct {
	name  string
	flows int
	train int // packets that the sender hands to the kernel at once (UDP GSO)
}

var (
	bulk      = shape{name: "bulk", flows: 1, train: 32}
	manyFlows = shape{name: "flows", flows: 64, train: 1}
)

// figures are what a flood has shown.
type figures struct {
	packets    uint64 // that have arrived
	took       time.Duration
	all, relay time.Duration // CPU time of all that takes part, and of the relay's processes
	memory     int64         // of these, in bytes
}

// String returns the figures in the form of go test -bench.
func (f figures) String() string {
	n := float64(f.packets)
	return fmt.Sprintf("%.0f pps %.1f cpu-ns/packet %.1f relay-ns/packet %.2f MB",
		n/f.took.Seconds(), float64(f.all)/n, float64(f.relay)/n, float64(f.memory)/1e6)
}

// measure floods a relay for some time. It leaves nothing.
func (b *builder) measure(p *peer, s *shape, d time.Duration) (figures, error) {
	return (&bed{builder: b, shape: s, whole: s.train > 1 && !p.xdp}).measure(p, d)
}

func (b *bed) measure(p *peer, d time.Duration) (f figures, err error) {
	defer b.explain(&err)
	defer b.End(&err)
	b.build()
	if err := p.start(b); err != nil {
		return f, err
	}
	b.arrive()
	b.flood(d / 5)
	start, all, relay, packets := time.Now(), livetest.CPUTime(b, b.pids...), livetest.ProcessTime(b, b.pids...), b.counter.Count(b)
	b.flood(d)
	f = figures{
		packets: b.counter.Count(b) - packets, took: time.Since(start),
		all: livetest.CPUTime(b, b.pids...) - all, relay: livetest.ProcessTime(b, b.pids...) - relay, memory: b.memory(),
	}
	if f.packets == 0 {
		return f, fmt.Errorf("nothing has arrived")
	}
	return f, nil
}
