package relay_test

import (
	"context"
	"errors"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/xdp"
)

// TestMonitoredRelay checks that a monitor sees the connection between two peers that the
// kernel forwards, and tells it from their control connections, which use the same sockets.
// The first Initial is not among the packets: it is sent in the offer.
func TestMonitoredRelay(t *testing.T) {
	if !nettest.KernelAtLeast(t, 6, 6) {
		t.Skip("Linux before 6.6 has no TCX: the monitor does not see what the relay itself sends, and cannot tell its connections apart")
	}
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			n := newInternetWith(t, (*internet).oneNIC, f, &xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.MonitorStage}, Sessions: 64, Flows: 1000}, nil)
			n.attach(mode)
			m := watched(t, n.program)
			a, b := n.connect(f)
			n.transfer(a, b, 1<<20)
			before := n.relayed()
			n.transfer(a, b, kernelTransfer)
			if forwarded := n.relayed() - before; forwarded < kernelTransfer/1452 {
				t.Errorf("the kernel has forwarded %d packets of %d bytes", forwarded, kernelTransfer)
			}
			var controls, bulk int
			for c := range m.Connections() {
				t.Log(c.LogValue())
				switch {
				case len(c.ALPN) > 0 && c.ALPN[0] == "h3":
					if controls++; c.FromClient.Bytes > 1<<20 {
						t.Errorf("the control connection has %v, want only its own packets", c.FromClient)
					}
				case c.FromClient.Bytes > kernelTransfer || c.FromServer.Bytes > kernelTransfer:
					bulk++
				}
				if len(c.PathChanges) > 0 {
					t.Errorf("got changes %v", c.PathChanges)
				}
			}
			if controls != 2 || bulk != 1 {
				t.Errorf("got %d control connections and %d with the transfer, want 2 and 1", controls, bulk)
			}
		})
	}
}

// watched runs a monitor of a program until the test ends.
func watched(t *testing.T, program *xdp.Program) *monitor.Monitor {
	t.Helper()
	source, err := monitor.Kernel(program)
	if err != nil {
		t.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return m
}

// TestMonitoredRouter checks that a monitor on a router with three interfaces tells the
// four connections apart: those of two peers to the relay, and those between the peers, on
// one socket per peer.
func TestMonitoredRouter(t *testing.T) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			n := newInternet(t, (*internet).oneNIC, f)
			program := xdptest.Load(t, &xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.MonitorStage}, Sessions: 1, Flows: 1000})
			for _, iface := range []string{"r1", "r2", "r3"} {
				n.router.Do(func() error {
					_, err := program.Attach(iface, mode)
					return err
				})
			}
			m := watched(t, program)
			a, b := n.connect(f)
			n.transfer(a, b, kernelTransfer)
			var controls, bulk int
			for c := range m.Connections() {
				t.Log(c.LogValue(), c.FromClient, c.FromServer)
				if len(c.PathChanges) > 0 {
					t.Errorf("got changes %v", c.PathChanges)
				}
				switch sum := c.FromClient.Bytes + c.FromServer.Bytes; {
				case len(c.ALPN) > 0 && c.ALPN[0] == "h3":
					if controls++; sum > 1<<18 {
						t.Errorf("the control connection has %d bytes", sum)
					}
				case sum > kernelTransfer:
					bulk++
				}
			}
			if controls != 2 || bulk != 2 {
				t.Errorf("got %d control connections and %d legs, want 2 and 2", controls, bulk)
			}
		})
	}
}
