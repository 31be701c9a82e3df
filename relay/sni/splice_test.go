package sni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/internal/splice"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/quota"
)

// early makes connections candidates at once, and its policy is a variable.
func early(p Policy) *Splice { return &Splice{MinBytes: 1, MinAge: time.Nanosecond, Policy: p} }

func routeTo(u *server) []*Route {
	return []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}}}
}

// say sends text from one end and checks that it arrives at the other one.
func say(t *testing.T, from, to *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(to, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v, want %q", b, err, text)
	}
}

// inKernel waits until the only connection is in the kernel, and returns its pair.
func inKernel(t *testing.T, s *Server) *fakePair {
	t.Helper()
	c := onlyConn(t, s)
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 && c.snapshot().InKernel })
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pair.(*fakePair)
}

// splicedConn opens a connection through a server that moves each into the kernel, and waits
// until this one is there.
func splicedConn(t *testing.T, s *Server, u *server) (client, upstream *net.TCPConn, pair *fakePair) {
	t.Helper()
	client, upstream = open(t, s, u, "a.test")
	say(t, client, upstream, "begin")
	return client, upstream, inKernel(t, s)
}

// begun returns the number of takeovers that go on, or have succeeded.
func begun(s *Server) int {
	going := len(s.splicer.places) // before those that have succeeded
	return going + int(s.splicer.counters.takeovers.Load())
}

// TestSpliceLate checks that a connection goes into the kernel when it has relayed enough
// bytes and is old enough, and not before.
func TestSpliceLate(t *testing.T) {
	kernel := &fakeKernel{}
	u := newUpstream(t)
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: &Splice{MinBytes: 1 << 20, MinAge: time.Hour, Policy: Always}}, kernel)
	client, upstream := open(t, s, u, "a.test")
	short, shortUpstream := open(t, s, u, "a.test")
	say(t, short, shortUpstream, "a few bytes")
	go io.CopyN(client, zeros{}, 1<<20)
	if _, err := io.CopyN(io.Discard, upstream, 1<<20); err != nil {
		t.Fatal(err)
	}
	offered := func() int {
		s.splicer.mu.Lock()
		defer s.splicer.mu.Unlock()
		return len(s.splicer.offered)
	}
	nettest.Eventually(t, "the offer", func() bool { return offered() == 1 })
	s.splicer.tick(time.Now().Add(59*time.Minute), s.running.Go)
	if begun(s) != 0 {
		t.Error("a takeover has begun too early")
	}
	s.splicer.tick(time.Now().Add(time.Hour), s.running.Go)
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 })
	say(t, client, upstream, "in the kernel")
	say(t, upstream, client, "too")
	if offered() != 1 {
		t.Error("the short connection was offered")
	}
}

// TestSpliceBytes checks that the bytes of all times are counted, in userspace, in the kernel,
// and after the way back.
func TestSpliceBytes(t *testing.T) {
	u := newUpstream(t)
	var no atomic.Bool
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(func(*Candidate) bool { return !no.Load() })}, &fakeKernel{})
	client, upstream, _ := splicedConn(t, s, u)
	hello := uint64(len(helloOf(t, "a.test")))
	say(t, client, upstream, "in the kernel")
	say(t, upstream, client, "down")
	for c := range s.Connections() {
		if c.FromClient != hello+18 || c.FromUpstream != 4 || !c.InKernel || c.ServerName != "a.test" {
			t.Errorf("in the kernel: got %+v", c)
		}
	}
	no.Store(true)
	s.splicer.tick(time.Now().Add(time.Minute), s.running.Go)
	nettest.Eventually(t, "the way back", func() bool { return s.Stats().Splice.InKernel == 0 })
	say(t, client, upstream, "again in userspace")
	client.Close()
	upstream.Close()
	nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
	st := s.Stats()
	if st.FromClients != hello+18+18 || st.FromUpstreams != 4 || st.Reset != 0 {
		t.Errorf("got %+v", st)
	}
	if sp := st.Splice; sp.Takeovers != 1 || sp.WaysBack["policy"] != 1 || sp.WaysBackFailed != 0 {
		t.Errorf("got %+v", sp)
	}
}

// TestSpliceReturns checks that a connection that has come back goes into the kernel again
// after a time that grows.
func TestSpliceReturns(t *testing.T) {
	u := newUpstream(t)
	kernel := &fakeKernel{}
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(nil)}, kernel)
	client, upstream, pair := splicedConn(t, s, u)
	for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second} {
		say(t, client, upstream, "0123456789")
		pair.again.Add(10)
		asked := time.Now()
		s.splicer.tick(asked.Add(time.Hour), s.running.Go)
		nettest.Eventually(t, "the way back", func() bool { return s.Stats().Splice.InKernel == 0 })
		returned, takeovers := time.Now(), begun(s)
		s.splicer.tick(asked.Add(pause-1), s.running.Go)
		if begun(s) != takeovers {
			t.Errorf("a takeover has begun within %v", pause)
		}
		s.splicer.tick(returned.Add(pause), s.running.Go)
		pair = inKernel(t, s)
	}
}

// TestSpliceWants checks that a connection comes back when the kernel asks for it, also if it
// cannot at first, and that the reasons are counted.
func TestSpliceWants(t *testing.T) {
	u := newUpstream(t)
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, &fakeKernel{})
	client, upstream, pair := splicedConn(t, s, u)
	pair.refuseBack.Store(true)
	pair.asked <- splice.WantedTooBig
	nettest.Eventually(t, "a failure", func() bool { return s.Stats().Splice.WaysBackFailed == 1 })
	say(t, client, upstream, "still in the kernel")
	pair.refuseBack.Store(false)
	nettest.Eventually(t, "the way back", func() bool { return s.Stats().Splice.WaysBack["wanted_too_big"] == 1 })
	say(t, upstream, client, "in userspace")
	takeovers := begun(s)
	s.splicer.tick(time.Now().Add(9*time.Second), s.running.Go)
	if begun(s) != takeovers {
		t.Error("a takeover has begun at once after the way back")
	}
}

// TestSpliceEnds checks how connections in the kernel end, and how that is counted.
func TestSpliceEnds(t *testing.T) {
	finish := func(t *testing.T, s *Server, client, upstream *net.TCPConn, _ *fakePair) {
		for _, end := range []struct{ from, to *net.TCPConn }{{client, upstream}, {upstream, client}} {
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
		end         func(t *testing.T, s *Server, client, upstream *net.TCPConn, pair *fakePair)
		idle        time.Duration
		reset, idly uint64
		resets      bool // what both ends get
	}{
		"finished": {end: finish},
		"reset by the client": {reset: 1, end: func(t *testing.T, _ *Server, client, upstream *net.TCPConn, _ *fakePair) {
			reset(client)
			wantReset(t, "the upstream", upstream)
		}},
		"reset by the upstream": {reset: 1, end: func(t *testing.T, _ *Server, client, upstream *net.TCPConn, _ *fakePair) {
			reset(upstream)
			wantReset(t, "the client", client)
		}},
		"lost": {reset: 1, resets: true, end: func(_ *testing.T, _ *Server, _, _ *net.TCPConn, pair *fakePair) { pair.finish(endLost) }},
		"idle": {idle: time.Second, idly: 1, resets: true, end: func(*testing.T, *Server, *net.TCPConn, *net.TCPConn, *fakePair) {}},
		"Close": {reset: 1, resets: true, end: func(t *testing.T, s *Server, _, _ *net.TCPConn, _ *fakePair) {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always), IdleTimeout: tt.idle}, &fakeKernel{})
			client, upstream, pair := splicedConn(t, s, u)
			tt.end(t, s, client, upstream, pair)
			if tt.resets {
				wantReset(t, "the client", client)
				wantReset(t, "the upstream", upstream)
			}
			nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
			if st := s.Stats(); st.Reset != tt.reset || st.Idle != tt.idly || st.Splice.InKernel != 0 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// TestSplicePinned checks that Close leaves a connection to a kernel that goes on without the
// process, and resets those in userspace.
func TestSplicePinned(t *testing.T) {
	u := newUpstream(t)
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, &fakeKernel{pin: true})
	client, upstream, pair := splicedConn(t, s, u)
	other, _ := open(t, s, u, "a.test")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantReset(t, "the client in userspace", other)
	say(t, client, upstream, "without a server")
	if st := s.Stats(); st.Reset != 1 {
		t.Errorf("got %+v", st)
	}
	if err := pair.abort(); err != nil {
		t.Error(err)
	}
}

// TestSpliceShutdown checks that Shutdown waits for a connection in the kernel.
func TestSpliceShutdown(t *testing.T) {
	u := newUpstream(t)
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, &fakeKernel{})
	client, upstream, _ := splicedConn(t, s, u)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	nettest.Eventually(t, "the listener's end", func() bool {
		c, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	say(t, client, upstream, "goes on")
	select {
	case err := <-down:
		t.Fatalf("Shutdown has not waited: %v", err)
	default:
	}
	client.Close()
	upstream.Close()
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestSpliceQuota checks that a quota ends a connection in the kernel.
func TestSpliceQuota(t *testing.T) {
	controller, err := quota.New(&quota.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	u := newUpstream(t)
	s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always), Quota: controller}, &fakeKernel{})
	client, upstream, _ := splicedConn(t, s, u)
	if n := controller.End(netip.MustParsePrefix("127.0.0.0/8")); n != 1 {
		t.Errorf("%d connections were ended, want 1", n)
	}
	wantReset(t, "the client", client)
	wantReset(t, "the upstream", upstream)
	nettest.Eventually(t, "the slot", func() bool { return controller.Stats().Connections == 0 })
}

// TestSpliceAbortedOnItsWay checks that a connection that is aborted during its takeover is
// reset at both ends, whether the kernel has taken it or not.
func TestSpliceAbortedOnItsWay(t *testing.T) {
	for _, taken := range []bool{false, true} {
		taking := make(chan struct{})
		kernel := &fakeKernel{block: func(ctx context.Context) error {
			close(taking)
			<-ctx.Done()
			if taken {
				return nil
			}
			return &notTaken{"not_quiet", false, ctx.Err()}
		}}
		u := newUpstream(t)
		s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, kernel)
		client, upstream := open(t, s, u, "a.test")
		say(t, client, upstream, "begin")
		<-taking
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wantReset(t, "the client", client)
		wantReset(t, "the upstream", upstream)
		if st := s.Stats(); st.Reset != 1 || !maps.Equal(st.Splice.NotTaken, uncounted(notTakenReasons)) {
			t.Errorf("taken %v: got %+v", taken, st)
		}
	}
}

// TestSpliceEndsOnItsWay checks that a connection that ends during a takeover, which fails for
// that reason, ends as it does without one.
func TestSpliceEndsOnItsWay(t *testing.T) {
	for _, how := range []string{"finished", "reset"} {
		taking, goOn := make(chan struct{}), make(chan struct{})
		kernel := &fakeKernel{block: func(context.Context) error {
			close(taking)
			<-goOn
			return &notTaken{"closing", true, errors.New("a FIN has come")}
		}}
		u := newUpstream(t)
		s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, kernel)
		client, upstream := open(t, s, u, "a.test")
		say(t, client, upstream, "begin")
		<-taking
		want := uint64(0)
		if how == "reset" {
			want = 1
			reset(client)
			close(goOn)
			wantReset(t, "the upstream", upstream)
		} else {
			client.Close()
			if _, err := io.ReadAll(upstream); err != nil {
				t.Error(err)
			}
			close(goOn)
			upstream.Close()
		}
		nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
		if st := s.Stats(); st.Reset != want || st.Splice.NotTaken["closing"] != 1 {
			t.Errorf("%s: got %+v", how, st)
		}
	}
}

// TestSpliceRefused checks that refusals are counted by reason, and that a takeover is tried
// again only if another attempt can succeed.
func TestSpliceRefused(t *testing.T) {
	for _, final := range []bool{false, true} {
		kernel := &fakeKernel{refuse: func() error { return &notTaken{"some_reason", final, errors.New("no")} }}
		u := newUpstream(t)
		s := newSplicing(t, &Config{Routes: routeTo(u), Splice: early(Always)}, kernel)
		client, upstream := open(t, s, u, "a.test")
		say(t, client, upstream, "begin")
		nettest.Eventually(t, "the refusal", func() bool { return s.Stats().Splice.NotTaken["some_reason"] >= 1 && len(s.splicer.places) == 0 })
		tries := func() int {
			kernel.mu.Lock()
			defer kernel.mu.Unlock()
			return len(kernel.injected)
		}
		before := tries()
		nettest.Eventually(t, "the end of the takeover", func() bool { return len(s.splicer.due(never.Add(1))) == 1 })
		s.splicer.tick(time.Now().Add(24*time.Hour), s.running.Go)
		if again := tries() > before || len(s.splicer.places) > 0; again == final {
			t.Errorf("final %v: tried again: %v", final, again)
		}
		say(t, upstream, client, "still in userspace")
	}
}

// TestSplicePolicies checks that a route's policy goes before that of the server, and what
// they get to see.
func TestSplicePolicies(t *testing.T) {
	u := newUpstream(t)
	seen := make(chan Candidate, 1000)
	routes := []*Route{
		{Names: []string{"never.test"}, Upstreams: []string{u.addr()}, Policy: Never},
		{Names: []string{"a.test"}, Upstreams: []string{u.addr()}},
	}
	s := newSplicing(t, &Config{Routes: routes, Splice: early(func(c *Candidate) bool {
		seen <- *c
		return true
	})}, &fakeKernel{})
	client, upstream := open(t, s, u, "never.test")
	say(t, client, upstream, "begin")
	nettest.Eventually(t, "the decision", func() bool { return s.Stats().Splice.NotTaken["policy"] >= 1 })
	if len(seen) != 0 {
		t.Error("the server's policy was asked")
	}
	client, upstream = open(t, s, u, "a.test")
	say(t, client, upstream, "begin")
	nettest.Eventually(t, "the takeover", func() bool { return s.Stats().Splice.InKernel == 1 })
	c := <-seen
	if c.Route != "a.test" || c.ServerName != "a.test" || c.Upstream != u.addr() || c.Age <= 0 || c.FromClient == 0 || c.InKernel {
		t.Errorf("got %+v", c)
	}
}

// TestSpliceInjected checks that the kernel learns by how much the two streams differ.
func TestSpliceInjected(t *testing.T) {
	for _, received := range []bool{false, true} {
		for version := range 3 {
			kernel := &fakeKernel{}
			u := newUpstream(t)
			cfg := &Config{Splice: early(Always), Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{u.addr()}, SendProxy: version}}}
			if received {
				cfg.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
			s := newSplicing(t, cfg, kernel)
			client := dial(t, s)
			var sent, got uint64
			if received {
				header, err := proxyproto.HeaderProxyFromAddrs(2, client.LocalAddr(), client.RemoteAddr()).Format()
				if err != nil {
					t.Fatal(err)
				}
				sent += uint64(len(header))
				if _, err := client.Write(header); err != nil {
					t.Fatal(err)
				}
			}
			hello := helloOf(t, "a.test")
			sent += uint64(len(hello))
			if _, err := client.Write(hello); err != nil {
				t.Fatal(err)
			}
			upstream := u.accept()
			b := make([]byte, 4096)
			for got < uint64(len(hello)) || version > 0 && got == uint64(len(hello)) {
				n, err := upstream.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				got += uint64(n)
			}
			say(t, client, upstream, "begin")
			inKernel(t, s)
			if kernel.injected[0] != got-sent {
				t.Errorf("header received %v, sent %d: got %d, want %d", received, version, int64(kernel.injected[0]), int64(got-sent))
			}
		}
	}
}

// TestSpliceAdopts checks that a server takes on the connections that another process has left
// in the kernel, counts them for their source, and relays them after a way back.
func TestSpliceAdopts(t *testing.T) {
	for _, returns := range []bool{false, true} {
		left := newUpstream(t)
		end := func() (ours, theirs *net.TCPConn) {
			c, err := net.Dial("tcp", left.addr())
			if err != nil {
				t.Fatal(err)
			}
			return left.accept(), c.(*net.TCPConn)
		}
		ours, client := end()
		other, upstream := end()
		pair := newFakePair(ours, other)
		kernel := &fakeKernel{left: []adoptedPair{{pair, addrPort(ours.RemoteAddr()), addrPort(other.RemoteAddr())}}}
		controller, err := quota.New(&quota.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer controller.Close()
		s := newSplicing(t, &Config{Splice: early(Always), Quota: controller}, kernel)
		say(t, client, upstream, "in the kernel")
		if n := controller.Stats().Connections; n != 1 {
			t.Errorf("the quota counts %d connections", n)
		}
		for c := range s.Connections() {
			if !c.InKernel || !c.Adopted || c.Client != addrPort(client.LocalAddr()) || c.Upstream != upstream.LocalAddr().String() || c.FromClient != 13 {
				t.Errorf("got %+v", c)
			}
		}
		s.conns.mu.Lock()
		if n := s.conns.sources[netip.MustParsePrefix("127.0.0.1/32")]; n == nil || n.all != 1 || n.waiting != 0 {
			t.Errorf("the source has %+v", n)
		}
		s.conns.mu.Unlock()
		if returns {
			pair.asked <- splice.WantedInterface
			nettest.Eventually(t, "the way back", func() bool { return s.Stats().Splice.InKernel == 0 })
			say(t, upstream, client, "in userspace")
		}
		client.Close()
		upstream.Close()
		nettest.Eventually(t, "the end", func() bool { return s.Stats().Open == 0 })
		if st := s.Stats(); st.Splice.Adopted != 1 || st.FromClients != 13 || st.Accepted != 0 || st.Reset != 0 {
			t.Errorf("got %+v", st)
		}
	}
}

// TestSpliceOff checks that a server relays without the kernel if there is none, and says so,
// and that a wrong configuration is an error.
func TestSpliceOff(t *testing.T) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	u := newUpstream(t)
	cfg := &Config{Routes: routeTo(u), Splice: &Splice{Interfaces: []string{"eth0"}}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := newWithKernel(cfg, l, nil, func(*Splice, *slog.Logger) (kernelPath, error) {
		return nil, fmt.Errorf("%w: the kernel is too old", errNoKernel)
	})
	if err != nil {
		t.Fatal(err)
	}
	runServer(t, s)
	client, upstream := open(t, s, u, "a.test")
	say(t, client, upstream, "in userspace")
	if st := s.Stats().Splice; !strings.Contains(st.Off, "too old") || st.NotTaken == nil {
		t.Errorf("got %+v", st)
	}
	if n := strings.Count(log.String(), "too old"); n != 1 {
		t.Errorf("the reason was logged %d times", n)
	}
}

// TestBadSplice checks the errors of configurations.
func TestBadSplice(t *testing.T) {
	for want, conf := range map[string]*Splice{
		"Splice.Interfaces is empty":          {},
		"Splice.Interfaces has an empty name": {Interfaces: []string{""}},
		"unknown method 99":                   {Method: 99},
		"Splice.MaxConnections is -1":         {Interfaces: []string{"x"}, MaxConnections: -1},
		"Splice.MaxSegment is 99":             {Interfaces: []string{"x"}, MaxSegment: 99},
		"Splice.MinBytes is -1":               {Interfaces: []string{"x"}, MinBytes: -1},
		"Splice.MinAge is -1s":                {Interfaces: []string{"x"}, MinAge: -time.Second},
	} {
		if _, err := Listen(t.Context(), "tcp", "127.0.0.1:0", &Config{Splice: conf}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	kernel := &fakeKernel{}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	_, err = newWithKernel(&Config{Splice: &Splice{Interfaces: []string{"nothing0"}}}, l, nil, func(*Splice, *slog.Logger) (kernelPath, error) { return kernel, nil })
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "nothing0") || kernel.closed != 1 {
		t.Errorf("got %v for an interface that does not exist; the kernel was closed %d times", err, kernel.closed)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// TestSpliceReasons checks that docs/sni.md explains all reasons for which a connection stays in
// userspace or comes back.
func TestSpliceReasons(t *testing.T) {
	doc, err := os.ReadFile("../../docs/sni.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := []string{reasonPolicy}
	for r := splice.RefusedProtocol; r <= splice.WantedInterface; r++ {
		if r != splice.RefusedCanceled { // only when the connection is aborted
			reasons = append(reasons, r.String())
		}
	}
	for _, r := range reasons {
		if !regexp.MustCompile(`(?m)^\|.*\b` + r + `\b`).Match(doc) {
			t.Errorf("%s is missing", r)
		}
	}
}
