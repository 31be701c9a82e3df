package p2p

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/xdp"
)

// TestMonitoredMigration checks that a monitor on the dialer's router sees one
// connection migrate from the relay to the peer, although probes came before.
func TestMonitoredMigration(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *nettest.Host) (monitor.Source, error){
		"packet sockets": func(*testing.T, *nettest.Host) (monitor.Source, error) { return monitor.Capture("in") },
		"kernel":         routerFlows,
	} {
		t.Run(name, func(t *testing.T) {
			if name == "kernel" && !nettest.KernelAtLeast(t, 6, 6) {
				t.Skip("Linux before 6.6 has no TCX, so the monitor stage sees no egress packets")
			}
			l := newKernelLab(t, nettest.PortRestricted, nettest.FullCone, nil)
			m := l.monitored(l.sites[0].nat, open)
			a, b := l.connect()
			l.exchange(a, b, 1<<20)
			l.pastRelay(a, b)
			relay, peer := netip.MustParseAddrPort(kernelRelay), a.Path().Remote
			nettest.Eventually(l, "the monitor sees the move to the peer", func() bool {
				l.exchange(a, b, 10_000) // a packet socket may have lost what came before
				return moved(m, relay, peer)
			})
		})
	}
}

// routerFlows watches the inner interface of a router with the kernel's program.
func routerFlows(t *testing.T, router *nettest.Host) (monitor.Source, error) {
	program := xdptest.Load(t, &xdp.Config{Stages: []xdp.Stage{xdp.MonitorStage}, Flows: 1000})
	if _, err := program.Attach("in", xdp.Native); err != nil {
		return nil, err
	}
	return monitor.Kernel(program)
}

// monitored runs a monitor on a host until the test ends.
func (l *kernelLab) monitored(on *nettest.Host, open func(*testing.T, *nettest.Host) (monitor.Source, error)) *monitor.Monitor {
	l.Helper()
	var source monitor.Source
	on.Do(func() (err error) {
		source, err = open(l.T, on)
		return err
	})
	m, err := monitor.New(source, nil)
	if err != nil {
		l.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	l.Cleanup(func() {
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			l.Errorf("Run: %v", err)
		}
	})
	return m
}

// moved says whether the server's address of a connection has changed in this way. The dialer's
// control connection with the relay has the same two addresses. So if only little was sent after the
// change, the monitor may know only that one of both has moved.
func moved(m *monitor.Monitor, from, to netip.AddrPort) bool {
	at := make(map[uint64]netip.AddrPort) // the server of each connection's first path
	var open []uint64
	for c := range m.Connections() {
		at[c.Number] = c.Paths[0].Server
		for _, change := range c.PathChanges {
			if change.Kind == monitor.Probe || change.To != to {
				continue
			}
			if change.From == from {
				return true
			}
			open = change.Candidates
		}
	}
	return len(open) == 2 && at[open[0]] == from && at[open[1]] == from
}
