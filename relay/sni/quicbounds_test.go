package sni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/quota"
)

// plainServer runs a server whose route "a.test" leads to a plain socket.
func plainServer(t testing.TB, cfg Config) (*Server, *net.UDPConn) {
	t.Helper()
	upstream := udpConn(t, "127.0.0.1:0")
	cfg.Routes = routesTo("a.test", addrOf(upstream).String())
	return newQUICServer(t, &cfg), upstream
}

// TestQUICAmplification checks that a client that has not confirmed gets three times as many
// bytes as it has sent, also if it sends packets with any IDs, and everything afterwards.
func TestQUICAmplification(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	client := udpConn(t, "127.0.0.1:0")
	p := newPair(t, s, upstream, "a.test", client)
	sent, got := 0, 0
	for _, d := range initials(t, wire.Version1, p.first, quicHello(t, "a.test"), 2) {
		sent += len(d)
	}
	id := testID(8)
	flood := func(n int) {
		for range n {
			send(t, upstream, p.from, longPacket(wire.Version1, 2, []byte("clnt"), id, 1200))
		}
	}
	flood(50)
	nettest.Eventually(t, "drops", func() bool { return s.Stats().QUIC.Dropped[DropAmplification] >= 40 })
	for _, junk := range [][]byte{
		shortPacket(testID(8), 1200), longPacket(wire.Version1, 2, testID(8), []byte("clnt"), 1200),
		longPacket(wire.Version1, 0, p.first, []byte("clnt"), 1200),
	} {
		send(t, client, s.Addr(), junk)
		recv(t, upstream)
		sent += len(junk)
		flood(10)
	}
	nettest.Eventually(t, "drops", func() bool { return s.Stats().QUIC.Dropped[DropAmplification] >= 50 })
	if got = received(t, client); got > factor*sent {
		t.Errorf("the client has sent %d bytes and got %d", sent, got)
	}
	send(t, client, s.Addr(), longPacket(wire.Version1, 2, id, []byte("clnt"), 100))
	recv(t, upstream)
	flood(50)
	for range 50 {
		recv(t, client)
	}
}

// received returns the number of bytes that a socket gets until nothing comes for a moment.
func received(t testing.TB, c *net.UDPConn) (n int) {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		size, err := c.Read(buf)
		if err != nil {
			return n
		}
		n += size
	}
}

// TestQUICEcho checks that an upstream that repeats the client's own ID does not let the client
// confirm.
func TestQUICEcho(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	send(t, upstream, p.from, longPacket(wire.Version1, 2, []byte("clnt"), p.first, 1200))
	recv(t, p.client)
	send(t, p.client, s.Addr(), longPacket(wire.Version1, 2, p.first, []byte("clnt"), 1200))
	recv(t, upstream)
	if st := s.Stats().QUIC; st.Relayed != 0 || st.Waiting != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICStolenID checks that a packet with the ID of another client's connection opens another
// flow to the same upstream, and that the flow of the other client stays as it is.
func TestQUICStolenID(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	victim := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	for i, packet := range [][]byte{
		shortPacket(victim.chosen, 100), longPacket(wire.Version1, 2, victim.chosen, nil, 100),
		initials(t, wire.Version1, victim.first, quicHello(t, "b.test"), 1)[0],
	} {
		thief := udpConn(t, "127.0.0.1:0")
		send(t, thief, s.Addr(), packet)
		got, from := recv(t, upstream)
		if from == victim.from || !bytes.Equal(got, packet) {
			t.Fatalf("packet %d came from %v, that of the victim is %v", i, from, victim.from)
		}
		send(t, upstream, from, shortPacket([]byte("clnt"), 50))
		recv(t, thief)
		send(t, upstream, victim.from, shortPacket([]byte("clnt"), 1200))
		recv(t, victim.client)
		send(t, victim.client, s.Addr(), shortPacket(victim.chosen, 1200))
		if _, from := recv(t, upstream); from != victim.from {
			t.Fatalf("the victim's packets come from %v, before from %v", from, victim.from)
		}
		wantSilence(t, "the thief", thief)
	}
}

// TestQUICManyThieves checks that a connection has few flows, and that flows that nobody has
// confirmed do not push out the one that was confirmed.
func TestQUICManyThieves(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	victim := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	for range 3 * maxPaths {
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), shortPacket(victim.chosen, 100))
		recv(t, upstream)
	}
	if n := s.Stats().QUIC.Flows; n != maxPaths {
		t.Errorf("%d flows, want %d", n, maxPaths)
	}
	send(t, victim.client, s.Addr(), shortPacket(victim.chosen, 1200))
	if _, from := recv(t, upstream); from != victim.from {
		t.Errorf("the victim's packets come from %v, before from %v", from, victim.from)
	}
}

// TestQUICUnknownMove checks where a packet with an unknown ID goes that comes from another port:
// to the only upstream of its source, or else nowhere.
func TestQUICUnknownMove(t *testing.T) {
	a, b := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(a).String(), "b.test", addrOf(b).String())})
	newPair(t, s, a, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	for i := range 2 {
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), shortPacket(testID(8), 100))
		recv(t, a)
		if st := s.Stats().QUIC; st.Moved != uint64(i+1) {
			t.Errorf("got %+v", st)
		}
		newPair(t, s, a, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	}
	newPair(t, s, b, "b.test", udpConn(t, "127.0.0.1:0")).confirm()
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), shortPacket(testID(8), 100))
	nettest.Eventually(t, "the drop", func() bool { return s.Stats().QUIC.Dropped[DropUnknownID] == 1 })
}

// sources opens sockets with different sources if the system has them: all of 127.0.0.0/8.
func sources(t *testing.T, n int) (out []*net.UDPConn) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("this system has one loopback address")
	}
	for i := range n {
		out = append(out, udpConn(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 0).String()))
	}
	return out
}

// TestQUICSlowClients checks that clients that send one Initial, from thousands of sources, are
// bounded, and that others get through.
func TestQUICSlowClients(t *testing.T) {
	const limit = 50
	s, upstream := plainServer(t, Config{MaxWaiting: limit})
	hello := quicHello(t, "a.test")
	var before int
	all := sources(t, 2000)
	for i, c := range all {
		id := testID(8)
		parts := initials(t, wire.Version1, id, hello, 2)
		if i%2 == 0 { // complete: the upstream does not answer
			send(t, c, s.Addr(), parts...)
		} else {
			send(t, c, s.Addr(), parts[0])
		}
		nettest.Eventually(t, "the attempt", func() bool { return s.Stats().QUIC.Accepted == uint64(i+1) })
		if i == limit { // the server has started all its goroutines
			before = runtime.NumGoroutine()
		}
	}
	st := s.Stats().QUIC
	if st.Flows > limit || st.Failed[WaitingFull] < uint64(len(all)-limit) {
		t.Errorf("got %+v", st)
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines, before %d", n, before)
	}
	drain(upstream) // or its socket has no room
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
}

// drain reads what a socket has.
func drain(c *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // an error ends the loop
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// TestQUICWaitingPerSource checks that the oldest attempt of a source makes room, and not those
// of others.
func TestQUICWaitingPerSource(t *testing.T) {
	s, upstream := plainServer(t, Config{MaxWaitingPerSource: 2})
	other := sources(t, 1)[0]
	hello := quicHello(t, "a.test")
	id := testID(8)
	parts := initials(t, wire.Version1, id, hello, 2)
	send(t, other, s.Addr(), parts[0])
	nettest.Eventually(t, "the attempt", func() bool { return s.Stats().QUIC.Accepted == 1 })
	for i := range 5 {
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), hello, 2)[0])
		nettest.Eventually(t, "the attempt", func() bool { return s.Stats().QUIC.Accepted == uint64(2+i) })
	}
	if st := s.Stats().QUIC; st.Failed[WaitingFull] != 3 || st.Waiting != 3 {
		t.Errorf("got %+v", st)
	}
	send(t, other, s.Addr(), parts[1])
	recv(t, upstream)
}

// TestQUICLimits checks the limits of connections that are confirmed.
func TestQUICLimits(t *testing.T) {
	for want, cfg := range map[Failure]Config{
		SourceFull: {MaxConnectionsPerSource: 2},
		ServerFull: {MaxConnections: 2},
	} {
		t.Run(want.String(), func(t *testing.T) {
			s, upstream := plainServer(t, cfg)
			for range 2 {
				newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
			}
			client := udpConn(t, "127.0.0.1:0")
			send(t, client, s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
			nettest.Eventually(t, "the refusal", func() bool { return s.Stats().QUIC.Failed[want] == 1 })
			wantSilence(t, "the client", client)
		})
	}
}

// TestQUICRouteLimit checks that Route.MaxConnections holds for confirmed connections, also of
// those that were begun when there was room.
func TestQUICRouteLimit(t *testing.T) {
	upstream := udpConn(t, "127.0.0.1:0")
	routes := routesTo("a.test", addrOf(upstream).String())
	routes[0].MaxConnections = 1
	s := newQUICServer(t, &Config{Routes: routes})
	early := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	id := testID(8)
	send(t, upstream, early.from, longPacket(wire.Version1, 2, []byte("clnt"), id, 100))
	recv(t, early.client)
	send(t, early.client, s.Addr(), longPacket(wire.Version1, 2, id, []byte("clnt"), 100))
	nettest.Eventually(t, "the refusal", func() bool { return s.Stats().QUIC.Failed[RouteFull] == 1 })
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
	nettest.Eventually(t, "the next refusal", func() bool { return s.Stats().QUIC.Failed[RouteFull] == 2 })
}

// TestQUICQuota checks that a controller admits attempts, learns when they are established, and
// ends connections.
func TestQUICQuota(t *testing.T) {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 1, HalfOpen: 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	s, upstream := plainServer(t, Config{Quota: controller})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	if st := controller.Stats(); st.HalfOpen != 1 || st.Connections != 0 {
		t.Errorf("before: %+v", st)
	}
	p.confirm()
	if st := controller.Stats(); st.HalfOpen != 0 || st.Connections != 1 {
		t.Errorf("confirmed: %+v", st)
	}
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), shortPacket(p.chosen, 100)) // moved: no other slot
	recv(t, upstream)
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
	nettest.Eventually(t, "the refusal", func() bool { return s.Stats().QUIC.Failed[QuotaRefused] == 1 })
	if n := controller.End(netip.MustParsePrefix("127.0.0.0/8")); n != 1 {
		t.Errorf("%d connections were ended, want 1", n)
	}
	nettest.Eventually(t, "the end", func() bool { return s.Stats().QUIC.Flows == 0 && controller.Stats().Connections == 0 })
}

// TestQUICIdle checks that flows without datagrams end, and that those that the client has not
// confirmed end earlier.
func TestQUICIdle(t *testing.T) {
	s, upstream := plainServer(t, Config{QUICIdleTimeout: 2 * time.Hour, HelloTimeout: time.Hour})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	q := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	send(t, upstream, q.from, longPacket(wire.Version1, 2, []byte("clnt"), testID(8), 100))
	recv(t, q.client)
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 2)[0])
	nettest.Eventually(t, "the attempts", func() bool { return s.Stats().QUIC.Flows == 3 })
	sweepAfter(s, time.Hour)
	if st := s.Stats().QUIC; st.Idle != 0 || st.Failed[Unconfirmed] != 1 || st.Failed[HelloTimeout] != 1 || st.Flows != 1 {
		t.Errorf("after an hour: %+v", st)
	}
	sweepAfter(s, 2*time.Hour)
	if st := s.Stats().QUIC; st.Idle != 1 || st.Flows != 0 {
		t.Errorf("after two hours: %+v", st)
	}
	send(t, p.client, s.Addr(), shortPacket(p.chosen, 100))
	nettest.Eventually(t, "the drop", func() bool { return s.Stats().QUIC.Dropped[DropUnknownID] == 1 })
}

// sweepAfter lets a server end what has expired, as if it were later.
func sweepAfter(s *Server, later time.Duration) {
	now := time.Now().Add(later)
	for _, sh := range s.quic.shards {
		sh.sweep(now)
	}
}

// TestQUICDeadUpstream checks that a connection gets to the next upstream if the first one is
// gone, or does not answer, or has a name that does not exist, and that the first one is left out
// then.
func TestQUICDeadUpstream(t *testing.T) {
	gone := udpConn(t, "127.0.0.1:0")
	gone.Close()
	for name, dead := range map[string]string{
		"gone": addrOf(gone).String(), "silent": addrOf(udpConn(t, "127.0.0.1:0")).String(), "no such name": "nowhere.invalid:443",
	} {
		t.Run(name, func(t *testing.T) {
			u := newQUICUpstream(t, "u", nil)
			route := &Route{Names: []string{"a.test"}, Upstreams: []string{dead, u.addr()}}
			s := newQUICServer(t, &Config{Routes: []*Route{route}, DialTimeout: 500 * time.Millisecond})
			for range 3 {
				if got := ask(t, dialQUIC(t, newTransport(t), s, "a.test"), 1000); got != "u" {
					t.Errorf("got to %s", got)
				}
			}
			if st := s.Stats().QUIC; st.Relayed != 3 || st.DialFailures == 0 || st.DialFailures > 2 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// TestQUICNoUpstream checks that an attempt fails if no upstream answers, and that one that dies
// later is left out.
func TestQUICNoUpstream(t *testing.T) {
	s, upstream := plainServer(t, Config{HelloTimeout: time.Hour})
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0"))
	sweepAfter(s, time.Hour)
	if n := s.Stats().QUIC.Failed[UpstreamFailed]; n != 1 {
		t.Errorf("%d attempts have failed, want 1", n)
	}
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	u := s.Routes()[0].pool.upstreams[0]
	upstream.Close()
	for range 5 {
		send(t, p.client, s.Addr(), shortPacket(p.chosen, 100))
	}
	nettest.Eventually(t, "the upstream's failure", func() bool { return !u.leftOut(time.Now()).IsZero() })
	u.mu.Lock()
	failures := u.failures
	u.mu.Unlock()
	if failures != 1 {
		t.Errorf("the upstream has failed %d times in a row, want once for all datagrams", failures)
	}
}

// TestQUICLoop checks that a relay does not relay to itself.
func TestQUICLoop(t *testing.T) {
	route := &Route{Names: []string{"a.test"}}
	s := newQUICServer(t, nil)
	route.Upstreams = []string{s.Addr().String()}
	if err := s.SetRoutes([]*Route{route}); err != nil {
		t.Fatal(err)
	}
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
	nettest.Eventually(t, "the failure", func() bool { return s.Stats().QUIC.Failed[UpstreamFailed] == 1 })
	if st := s.Stats().QUIC; st.Accepted != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICClose checks that Close ends flows in every state, and leaves no goroutine.
func TestQUICClose(t *testing.T) {
	before := runtime.NumGoroutine()
	upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s, err := Listen(t.Context(), "tcp+udp", "127.0.0.1:0", &Config{Routes: routesTo("a.test", addrOf(upstream).String())})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != s.QUICAddr() {
		t.Errorf("TCP at %v, QUIC at %v", s.Addr(), s.QUICAddr())
	}
	ran := make(chan error)
	go func() { ran <- s.Run(context.Background()) }()
	newPair(t, s, upstream, "a.test", client).confirm()
	newPair(t, s, upstream, "a.test", client)
	send(t, client, s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 2)[0])
	nettest.Eventually(t, "the attempts", func() bool { return s.Stats().QUIC.Flows == 3 })
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-ran; !errors.Is(err, ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	checkEmpty(t, s)
	if st := s.Stats().QUIC; st.Failed[ServerClosed] != 2 || st.Relayed != 1 {
		t.Errorf("got %+v", st)
	}
	nettest.Eventually(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// TestQUICShutdown checks that Shutdown takes no new connections, and lets the others end.
func TestQUICShutdown(t *testing.T) {
	s, upstream := plainServer(t, Config{QUICIdleTimeout: time.Hour})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	<-s.draining.Done()
	send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 1)...)
	nettest.Eventually(t, "the drop", func() bool { return s.Stats().QUIC.Dropped[DropClosing] == 1 })
	send(t, p.client, s.Addr(), shortPacket(p.chosen, 100))
	recv(t, upstream)
	select {
	case err := <-down:
		t.Fatalf("Shutdown has not waited: %v", err)
	default:
	}
	sweepAfter(s, time.Hour)
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if st := s.Stats().QUIC; st.Idle != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICNetworks checks the networks that Listen takes.
func TestQUICNetworks(t *testing.T) {
	for network, want := range map[string]string{"tcp": "tcp", "udp": "udp", "tcp+udp": "both", "tcp4+udp4": "both"} {
		s, err := Listen(t.Context(), network, "127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tcp, udp := s.listener != nil, s.QUICAddr().IsValid(); tcp != (want != "udp") || udp != (want != "tcp") || s.Addr().Port() == 0 {
			t.Errorf("%s: TCP %v, UDP %v, address %v", network, tcp, udp, s.Addr())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, network := range []string{"", "unix", "udp+tcp", "tcp+udp4"} {
		if _, err := Listen(t.Context(), network, "127.0.0.1:0", nil); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: got %v", network, err)
		}
	}
	if _, err := Listen(t.Context(), "udp", "127.0.0.1:0", &Config{Shards: -1}); !errors.Is(err, ErrConfig) {
		t.Errorf("got %v", err)
	}
}

// TestQUICConnections checks that flows are among the connections.
func TestQUICConnections(t *testing.T) {
	s, upstream := plainServer(t, Config{})
	p := newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
	var got []string
	for c := range s.Connections() {
		got = append(got, fmt.Sprintf("%s %v %s %s %v", c.Network, c.Client, c.ServerName, c.Route, c.Upstream))
	}
	if want := fmt.Sprintf("udp %v a.test a.test %v", addrOf(p.client), addrOf(upstream)); strings.Join(got, ";") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
