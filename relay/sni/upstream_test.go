package sni

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func poolOf(balance Balance, addresses ...string) *pool {
	p := &pool{balance: balance}
	for _, a := range addresses {
		p.upstreams = append(p.upstreams, &upstream{address: a})
	}
	return p
}

// firsts counts which upstream is tried first.
func firsts(p *pool, n int) map[string]int {
	got := make(map[string]int)
	for range n {
		got[p.order(time.Now())[0].address]++
	}
	return got
}

// TestBalance checks the ways to choose an upstream.
func TestBalance(t *testing.T) {
	for _, b := range []Balance{RoundRobin, LeastConnections, RandomTwo} {
		got := firsts(poolOf(b, "a", "b", "c"), 3000)
		for _, u := range []string{"a", "b", "c"} {
			if n := got[u]; n < 800 || n > 1200 || b == RoundRobin && n != 1000 {
				t.Errorf("%v: got %v", b, got)
			}
		}
	}
	least := poolOf(LeastConnections, "a", "b", "c")
	least.upstreams[0].active.Store(2)
	least.upstreams[2].active.Store(1)
	if got := firsts(least, 100); got["b"] != 100 {
		t.Errorf("least connections: got %v", got)
	}
	two := poolOf(RandomTwo, "a", "b", "c")
	two.upstreams[0].active.Store(2)
	if got := firsts(two, 1000); got["a"] != 0 || got["b"] < 300 || got["c"] < 300 {
		t.Errorf("random two: got %v", got)
	}
	if got := poolOf(RandomTwo).order(time.Now()); len(got) != 0 {
		t.Errorf("got %v without upstreams", got)
	}
}

// TestBackoff checks that an upstream that fails is left out, for longer each time, and that
// all are tried if all have failed.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poolOf(RoundRobin, "a", "b")
		a, b := p.upstreams[0], p.upstreams[1]
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
			a.failed(time.Now())
			if got := firsts(p, 10); got["b"] != 10 {
				t.Errorf("after a failure: %v", got)
			}
			time.Sleep(want - time.Millisecond)
			if got := firsts(p, 10); got["b"] != 10 {
				t.Errorf("before %v: %v", want, got)
			}
			time.Sleep(time.Millisecond)
			if got := firsts(p, 10); got["a"] != 5 {
				t.Errorf("after %v: %v", want, got)
			}
		}
		b.failed(time.Now())
		a.failed(time.Now())
		if got := p.order(time.Now()); got[0] != b || got[1] != a {
			t.Errorf("both have failed: %q is tried first, want that which comes back first", got[0].address)
		}
		a.worked()
		if got := firsts(p, 10); got["a"] != 10 {
			t.Errorf("after a success: %v", got)
		}
	})
}

// TestLocalErrors checks that an upstream is not left out for what this host lacks.
func TestLocalErrors(t *testing.T) {
	for err, want := range map[error]bool{syscall.EMFILE: true, syscall.EADDRNOTAVAIL: true, syscall.EAGAIN: true, syscall.ECONNREFUSED: false, errLoop: false} {
		if got := local(&net.OpError{Op: "dial", Err: os.NewSyscallError("x", err)}); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}

// TestNextUpstream checks that a client does not notice an upstream that is down.
func TestNextUpstream(t *testing.T) {
	down := newUpstream(t)
	down.Listener.Close()
	s := newServer(t, &Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{down.addr(), newTLSUpstream(t, "up")}}}})
	for range 5 {
		if got, err := nameBehind(t, s, &tls.Config{ServerName: "a.test"}); err != nil || got != "up" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if st := s.Stats(); st.DialFailures != 1 || st.Relayed != 5 {
		t.Errorf("got %+v, want one failure", st)
	}
}

// TestLoop checks that a route to the relay itself is refused.
func TestLoop(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		s, err := New(&Config{Routes: []*Route{{Names: []string{"a.test"}, Upstreams: []string{"127.0.0.1:" + port}}}}, l.(*net.TCPListener))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, _, err = s.dialer.dial(t.Context(), s.Routes()[0].pool.tries(), func(*dialError) {})
		if !errors.Is(err, errLoop) {
			t.Errorf("%s: got %v, want %v", listen, err, errLoop)
		}
	}
}

// names is a DNS server.
type names struct {
	mu    sync.Mutex
	addrs []netip.Addr
}

func (n *names) set(addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = nil
	for _, a := range addrs {
		n.addrs = append(n.addrs, netip.MustParseAddr(a))
	}
}

// answer answers a query.
func (n *names) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response = true
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.addrs {
		h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}
		switch {
		case a.Is4() && m.Questions[0].Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && m.Questions[0].Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

// resolver returns a resolver that asks the server.
func (n *names) resolver(t *testing.T) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 2000)
		for {
			got, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if answer, err := n.answer(b[:got]); err == nil {
				_, _ = conn.WriteTo(answer, from) // the resolver asks again
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestNames checks that the name of an upstream is looked up for each connection, and that
// all its addresses are tried.
func TestNames(t *testing.T) {
	u := newUpstream(t)
	_, port, _ := net.SplitHostPort(u.addr())
	var dns names
	s := newServer(t, &Config{
		Resolver: dns.resolver(t),
		Routes:   []*Route{{Names: []string{"a.test"}, Upstreams: []string{net.JoinHostPort("server.test", port)}}},
	})
	for _, tc := range []struct {
		addrs []string
		ok    bool
	}{
		{[]string{"127.0.0.1"}, true},
		{[]string{"127.0.0.2"}, false}, // where nobody listens
		{[]string{"127.0.0.2", "127.0.0.1"}, true},
		{[]string{"::1", "127.0.0.1"}, true},
		{nil, false},
	} {
		dns.set(tc.addrs...)
		before := s.Stats().Failed[UpstreamFailed]
		if tc.ok {
			open(t, s, u, "a.test")
			continue
		}
		if _, err := dial(t, s).Write(helloOf(t, "a.test")); err != nil {
			t.Fatal(err)
		}
		wantFailed(t, s, UpstreamFailed, before+1)
	}
}
