package sni

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/internal/test/nettest"
)

// splicing is a setup that moves each connection into the kernel as soon as it can.
func splicing() *spliceSetup {
	return &spliceSetup{Splice: &spliceOptions{Interfaces: bedInterfaces}}
}

// TestSplicedTLS checks that the kernel relays a large transfer of a real TLS server, byte for
// byte, that a small one stays in userspace, and that all bytes are counted.
func TestSplicedTLS(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, proxied := range []bool{false, true} {
			t.Run(fmt.Sprintf("v6=%v,proxied=%v", v6, proxied), func(t *testing.T) {
				b := newBed(t)
				server := b.exchange(v6, proxied)
				setup := splicing()
				setup.Late = true
				headers := uint64(0) // bytes of the two connections' headers
				if proxied {
					setup.SendProxy = 2
					headers = 2 * (16 + 12)
					if v6 {
						headers = 2 * (16 + 36)
					}
				}
				r := b.start(v6, server.Addr().String(), setup)
				small, large := b.secure(r.address), b.secure(r.address)
				if err := exchange(small, 1, 10_000, 10_000); err != nil {
					t.Fatal(err)
				}
				if err := exchange(large, 2, 3<<20, 3<<20); err != nil {
					t.Fatal(err)
				}
				r.waitFor("the takeover", func(s *SpliceStats) bool { return s.InKernel == 1 })
				if err := exchange(large, 3, 20<<20, 20<<20); err != nil {
					t.Fatal(err)
				}
				report := r.ask("stats")
				for _, c := range report.Connections {
					if c.InKernel != (c.FromClient > 20<<20) {
						t.Errorf("got %+v", c)
					}
				}
				st := b.finish(r, small, large)
				if st.FromClients+headers != server.received.Load() || st.FromUpstreams != server.sent.Load() || st.Reset != 0 || st.Splice.Takeovers != 1 {
					t.Errorf("the server got %d bytes and sent %d: got %+v", server.received.Load(), server.sent.Load(), st)
				}
			})
		}
	}
}

// TestSplicedEnds checks how connections in the kernel end at both ends, and how that is
// counted.
func TestSplicedEnds(t *testing.T) {
	halfClose := func(t *testing.T, first, second *net.TCPConn) {
		for _, end := range []struct{ from, to *net.TCPConn }{{first, second}, {second, first}} {
			if _, err := io.WriteString(end.from, "last"); err != nil {
				t.Fatal(err)
			}
			if err := end.from.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(end.to); err != nil || string(got) != "last" {
				t.Errorf("got %q, %v", got, err)
			}
		}
	}
	for name, tt := range map[string]struct {
		end         func(t *testing.T, r *relayProcessOf, client, upstream *net.TCPConn)
		idle        time.Duration
		resets      bool // what both ends get when they send something
		reset, idly uint64
	}{
		"client finishes first": {end: func(t *testing.T, _ *relayProcessOf, client, upstream *net.TCPConn) {
			halfClose(t, client, upstream)
		}},
		"upstream finishes first": {end: func(t *testing.T, _ *relayProcessOf, client, upstream *net.TCPConn) {
			halfClose(t, upstream, client)
		}},
		"client resets": {reset: 1, end: func(t *testing.T, _ *relayProcessOf, client, upstream *net.TCPConn) {
			reset(client)
			wantReset(t, "the upstream", upstream)
		}},
		"upstream resets": {reset: 1, end: func(t *testing.T, _ *relayProcessOf, client, upstream *net.TCPConn) {
			reset(upstream)
			wantReset(t, "the client", client)
		}},
		"idle": {idle: time.Second, idly: 1, resets: true, end: func(*testing.T, *relayProcessOf, *net.TCPConn, *net.TCPConn) {}},
		"Close": {reset: 1, resets: true, end: func(t *testing.T, r *relayProcessOf, _, _ *net.TCPConn) {
			if err := r.ask("close").Err; err != "" {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			u := b.upstream(false)
			setup := splicing()
			setup.Idle = tt.idle
			r := b.start(false, u.addr(), setup)
			client, upstream := b.spliced(r, u)
			tt.end(t, r, client, upstream)
			var report *spliceReport
			nettest.Eventually(t, "the end", func() bool { report = r.ask("stats"); return report.Stats.Open == 0 })
			if tt.resets {
				wantResetOfWriter(t, "the client", client)
				wantResetOfWriter(t, "the upstream", upstream)
			}
			if st := report.Stats; st.Reset != tt.reset || st.Idle != tt.idly || st.Splice.InKernel != 0 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// wantResetOfWriter checks that an end whose connection was reset in the kernel learns of it
// when it sends something.
func wantResetOfWriter(t *testing.T, who string, c *net.TCPConn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); errors.Is(err, syscall.ECONNRESET) {
		return
	}
	wantReset(t, who, c)
}

// TestSplicedShutdown checks that Shutdown waits for a connection in the kernel.
func TestSplicedShutdown(t *testing.T) {
	b := newBed(t)
	u := b.upstream(false)
	r := b.start(false, u.addr(), splicing())
	client, upstream := b.spliced(r, u)
	if _, err := io.WriteString(r.input, "shutdown\n"); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the listener's end", func() bool {
		return b.client.Run(func() error {
			c, err := net.Dial("tcp", r.address)
			if err == nil {
				c.Close()
			}
			return err
		}) != nil
	})
	say(t, client, upstream, "goes on")
	say(t, upstream, client, "too")
	client.Close()
	upstream.Close()
	if report := r.answer(); report.Err != "" || report.Stats.Reset != 0 {
		t.Errorf("got %+v", report)
	}
}

// TestSplicedWayBack checks that a connection comes back into userspace in the middle of a
// transfer, byte for byte, and goes into the kernel again.
func TestSplicedWayBack(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		b := newBed(t)
		server := b.exchange(v6, false)
		r := b.start(v6, server.Addr().String(), splicing())
		c := b.secure(r.address)
		ctx, cancel := context.WithCancel(t.Context())
		exchanged := make(chan error, 1)
		go func() { exchanged <- exchangeUntil(ctx, c) }()
		for times := range uint64(3) {
			r.waitFor("the takeover", func(s *SpliceStats) bool { return s.InKernel == 1 && s.Takeovers == times+1 })
			r.ask("never")
			r.waitFor("the way back", func(s *SpliceStats) bool { return s.InKernel == 0 && s.WaysBack["policy"] == times+1 })
			r.ask("always")
		}
		cancel()
		if err := <-exchanged; err != nil {
			t.Fatal(err)
		}
		st := b.finish(r, c)
		if st.FromClients != server.received.Load() || st.FromUpstreams != server.sent.Load() || st.Reset != 0 {
			t.Errorf("the server got %d bytes and sent %d: got %+v", server.received.Load(), server.sent.Load(), st)
		}
	}
}

// TestSplicedSizes checks that the relay announces segment sizes with which the kernel can
// relay between sides of different MTUs, and that it leaves an end that asks for less than
// Splice.MaxSegment to userspace.
func TestSplicedSizes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for name, tt := range map[string]struct {
			shrink func(b *bed)
			most   int
			taken  bool
		}{
			"the upstream's side": {taken: true, shrink: func(b *bed) {
				b.relay.MTU("s1", 1400)
				b.server.MTU("s0", 1400)
			}},
			"the client's side": {taken: true, shrink: func(b *bed) {
				b.relay.MTU("c1", 1400)
				b.client.MTU("c0", 1400)
			}},
			"the client alone":   {shrink: func(b *bed) { b.client.MTU("c0", 1400) }},
			"the upstream alone": {shrink: func(b *bed) { b.server.MTU("s0", 1400) }},
			"both, within MaxSegment": {most: 1300, taken: true, shrink: func(b *bed) {
				b.client.MTU("c0", 1400)
				b.server.MTU("s0", 1380)
			}},
		} {
			t.Run(fmt.Sprintf("%s,v6=%v", name, v6), func(t *testing.T) {
				b := newBed(t)
				tt.shrink(b)
				server := b.exchange(v6, false)
				setup := splicing()
				setup.Splice.MaxSegment = tt.most
				r := b.start(v6, server.Addr().String(), setup)
				c := b.secure(r.address)
				if err := exchange(c, 1, 1<<20, 1<<20); err != nil {
					t.Fatal(err)
				}
				if tt.taken {
					r.waitFor("the takeover", func(s *SpliceStats) bool { return s.InKernel == 1 })
				} else {
					r.waitFor("the refusal", func(s *SpliceStats) bool { return s.NotTaken["refused_mss"] == 1 })
				}
				if err := exchange(c, 2, 1<<20, 1<<20); err != nil {
					t.Fatal(err)
				}
				b.finish(r, c)
			})
		}
	}
}

// TestSplicedLoss checks that the default policy leaves a long path that loses packets to
// userspace: a connection in the kernel comes back when packets are lost.
func TestSplicedLoss(t *testing.T) {
	b := &bed{t, newHosts(t)}
	clean := nettest.LineConditions{Delay: 5 * time.Millisecond}
	client, server := lines(&b.bedHosts, clean)
	upstream := b.exchange(false, false)
	setup := splicing()
	setup.Policy = "leave"
	r := b.start(false, upstream.Addr().String(), setup)
	c := b.secure(r.address)
	ctx, cancel := context.WithCancel(t.Context())
	exchanged := make(chan error, 1)
	go func() { exchanged <- exchangeUntil(ctx, c) }()
	r.waitFor("the takeover", func(s *SpliceStats) bool { return s.InKernel == 1 })
	before := r.splice().WaysBack[reasonPolicy] // a busy machine loses packets as well
	lossy := clean
	lossy.Loss = 0.01
	client.Set(lossy)
	server.Set(lossy)
	r.waitFor("the way back", func(s *SpliceStats) bool { return s.WaysBack[reasonPolicy] > before })
	cancel()
	if err := <-exchanged; err != nil {
		t.Fatal(err)
	}
	client.Set(clean)
	server.Set(clean)
	if st := b.finish(r, c); st.FromClients != upstream.received.Load() || st.FromUpstreams != upstream.sent.Load() {
		t.Errorf("the server got %d bytes and sent %d: got %+v", upstream.received.Load(), upstream.sent.Load(), st)
	}
}

// exchangeUntil exchanges bytes until ctx is done.
func exchangeUntil(ctx context.Context, c io.ReadWriter) error {
	for seed := uint64(0); ctx.Err() == nil; seed++ {
		if err := exchange(c, seed, 1<<20, 1<<20); err != nil {
			return err
		}
	}
	return nil
}

// finish ends TLS connections in order, and returns the counters when none is left.
func (b *bed) finish(r *relayProcessOf, conns ...*tls.Conn) (st Stats) {
	b.Helper()
	for _, c := range conns {
		if err := c.CloseWrite(); err != nil {
			b.Error(err)
		}
		if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
			b.Errorf("got %d bytes and %v at the end", n, err)
		}
		c.Close()
	}
	nettest.Eventually(b.T, "the end", func() bool { st = r.ask("stats").Stats; return st.Open == 0 })
	return st
}

// TestSplicedKill checks that both ends of connections in the kernel are reset when the relay
// is killed.
func TestSplicedKill(t *testing.T) {
	b := newBed(t)
	u := b.upstream(false)
	r := b.start(false, u.addr(), splicing())
	client, upstream := b.spliced(r, u)
	r.kill()
	wantResetOfWriter(t, "the client", client)
	wantResetOfWriter(t, "the upstream", upstream)
}

// TestSplicedUnpin checks that Unpin ends the connections that a killed relay has left in the
// kernel, and leaves those of one that runs.
func TestSplicedUnpin(t *testing.T) {
	b := newBed(t)
	u := b.upstream(false)
	setup := splicing()
	setup.Splice.Pin = nettest.BPFFS(t) + "/sni"
	r := b.start(false, u.addr(), setup)
	client, upstream := b.spliced(r, u)
	if err := Unpin(setup.Splice.Pin); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	say(t, client, upstream, "still here")
	r.kill()
	for range 2 { // the second time there is nothing
		if err := Unpin(setup.Splice.Pin); err != nil {
			t.Error(err)
		}
	}
	wantResetOfWriter(t, "the client", client)
	wantResetOfWriter(t, "the upstream", upstream)
	if err := Unpin(t.TempDir()); !errors.Is(err, ErrConfig) {
		t.Errorf("a directory that is not on a BPF file system: got %v, want ErrConfig", err)
	}
}

// TestSplicedAdoption checks that pinned connections go on when the relay is killed, and that
// the next one adopts them.
func TestSplicedAdoption(t *testing.T) {
	b := newBed(t)
	u := b.upstream(false)
	setup := splicing()
	setup.Splice.Pin = nettest.BPFFS(t) + "/sni"
	r := b.start(false, u.addr(), setup)
	client, upstream := b.spliced(r, u)
	r.kill()
	say(t, client, upstream, "without a relay")
	say(t, upstream, client, "too")
	r = b.start(false, u.addr(), setup)
	report := r.ask("stats")
	if len(report.Connections) != 1 || report.Stats.Splice.Adopted != 1 || report.Stats.Splice.InKernel != 1 {
		t.Fatalf("got %+v", report)
	}
	c := report.Connections[0]
	if !c.Adopted || !c.InKernel || c.Client != addrPort(client.LocalAddr()) || c.Upstream != u.addr() {
		t.Errorf("got %+v", c)
	}
	say(t, client, upstream, "adopted")
	if c = r.ask("stats").Connections[0]; c.FromClient != 7 || c.FromUpstream != 0 {
		t.Errorf("got %d and %d bytes", c.FromClient, c.FromUpstream)
	}
	r.ask("never")
	r.waitFor("the way back", func(s *SpliceStats) bool { return s.WaysBack["policy"] == 1 })
	say(t, upstream, client, "in userspace")
	client.Close()
	upstream.Close()
	nettest.Eventually(t, "the end", func() bool { report = r.ask("stats"); return report.Stats.Open == 0 })
}

// TestOpenKernel checks which errors of the kernel path leave connections in userspace.
func TestOpenKernel(t *testing.T) {
	for name, want := range map[string]error{"nothing0": ErrConfig, "lo": errNoKernel} {
		if os.Geteuid() != 0 || !nettest.KernelAtLeast(t, 6, 6) {
			want = errNoKernel // before the interface is looked at
		}
		if _, err := openKernel(&Splice{Interfaces: []string{name}}, ratelog.New(nil)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}
