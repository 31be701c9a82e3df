package relay_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// TestKernelForwardsUnderFlood checks that a transfer goes on, peers connect and an HTTP/3
// server next to the relay answers while both are flooded with Initials. One program
// forwards for the relay, and enforces the quota of the server and of the relay's control
// connections.
func TestKernelForwardsUnderFlood(t *testing.T) {
	const service, attacker = "10.1.0.2:443", "10.3.0.9"
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			n := newHosts(t, (*internet).oneNIC)
			n.load(&xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.QuotaStage}, Sessions: 64})
			c, err := quota.New(&quota.Config{
				XDP: n.program, Excess: quota.Drop,
				Source: quota.Limits{Connections: 16, HalfOpen: 8, AttemptRate: 50},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			n.serve(f, &relay.Config{Quota: c})
			n.serveBeside(service, c)
			n.attach(mode)
			a, b := n.connect(f)
			n.transfer(a, b, 1<<20)

			n.bob.Address("eth0", attacker+"/24")
			stop := n.floodInitials(attacker, f.relay, service)
			n.moves("the kernel drops", func() uint64 { return c.Stats().Kernel[quota.AttemptRate] })
			ours, kernels := n.server.Stats().ForwardedPackets, n.relayed()
			n.transfer(a, b, kernelTransfer)
			ours, kernels = n.server.Stats().ForwardedPackets-ours, n.relayed()-kernels
			if min := uint64(kernelTransfer / 1452); kernels < min || ours > kernels/1000 {
				t.Errorf("the kernel has forwarded %d packets, want at least %d, and the loop %d", kernels, min, ours)
			}
			again := f
			again.alice, again.bob = "10.2.0.2:1001", "10.3.0.2:2001"
			a, b = n.connect(again)
			n.transfer(a, b, 1<<20)
			n.visit(service)
			stop()
			if s := c.Stats(); s.Dropped[quota.AttemptRate] <= s.Kernel[quota.AttemptRate] || s.KernelErrors > 0 {
				t.Errorf("Go drops no packets of the flood: %+v", s)
			}
		})
	}
}

// serveBeside runs an HTTP/3 server on the relay's host.
func (n *internet) serveBeside(addr string, c *quota.Controller) {
	n.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		n.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		n.Fatal(err)
	}
	conn := n.relay.Listen(addr)
	transport, err := c.Transport(&quic.Transport{Conn: conn})
	if err != nil {
		n.Fatal(err)
	}
	ln, err := transport.ListenEarly(http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), nil)
	if err != nil {
		n.Fatal(err)
	}
	server := &http3.Server{Handler: http.NotFoundHandler()}
	var done sync.WaitGroup
	done.Go(func() { server.ServeListener(ln) })
	n.Cleanup(func() {
		server.Close()
		transport.Close()
		conn.Close()
		done.Wait()
	})
}

// visit connects from alice's host, and makes a request.
func (n *internet) visit(addr string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 30*time.Second)
	defer cancel()
	transport := &quic.Transport{Conn: n.alice.Listen("10.2.0.2:0")}
	defer transport.Conn.Close()
	defer transport.Close()
	client := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Dial: func(ctx context.Context, addr string, t *tls.Config, c *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", addr)
			if err != nil {
				return nil, err
			}
			return transport.DialEarly(ctx, to, t, c)
		},
	}
	defer client.Close()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+addr+"/", nil)
	if err != nil {
		n.Fatal(err)
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		n.Errorf("the server beside the relay: %v", err)
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// floodInitials sends some thousand first Initials per second from bob's host to some
// ports, each with another port or connection ID.
func (n *internet) floodInitials(from string, to ...string) (stop func()) {
	n.Helper()
	conn := n.bob.Listen(net.JoinHostPort(from, "0"))
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		d := quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}
		initial := d.Build()
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for i := uint64(0); ctx.Err() == nil; <-ticker.C {
			for range 4 {
				i++
				binary.BigEndian.PutUint64(initial[6:], i)
				addr, _ := net.ResolveUDPAddr("udp", to[i%uint64(len(to))])
				_, _ = conn.WriteTo(initial, addr) // fails when a queue is full
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait(); conn.Close() })
	n.Cleanup(stop)
	return stop
}
