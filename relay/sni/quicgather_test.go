package sni

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// orders yields the orders of n things.
func orders(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, rest := range orders(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(rest), i, n-1))
		}
	}
	return all
}

// TestQUICHelloParts checks that a ClientHello in up to four datagrams, in any order and with
// repetitions, gets to the upstream of its name, and with it all that the client has sent before.
func TestQUICHelloParts(t *testing.T) {
	for _, v := range []wire.Version{wire.Version1, wire.Version2, 0xff00001d} {
		for parts := 1; parts <= 4; parts++ {
			t.Run(fmt.Sprintf("%v/%d", v, parts), func(t *testing.T) {
				upstream, other := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
				s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String(), "*", addrOf(other).String())})
				hello := quicHello(t, "a.test")
				for _, order := range orders(parts) {
					datagrams := initials(t, v, testID(8), hello, parts)
					client := udpConn(t, "127.0.0.1:0")
					var sent [][]byte
					for i, n := range order {
						sent = append(sent, datagrams[n])
						send(t, client, s.Addr(), datagrams[n])
						if i < parts-1 { // once more
							send(t, client, s.Addr(), datagrams[n])
						}
					}
					for _, want := range sent {
						if got, _ := recv(t, upstream); !bytes.Equal(got, want) {
							t.Fatalf("order %v: the upstream got other datagrams", order)
						}
					}
				}
				wantSilence(t, "the other upstream", other)
			})
		}
	}
}

// TestQUICHelloLost checks that a client whose datagram is lost is not relayed until it comes.
func TestQUICHelloLost(t *testing.T) {
	upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String())})
	datagrams := initials(t, wire.Version1, testID(8), quicHello(t, "a.test"), 2)
	send(t, client, s.Addr(), datagrams[1])
	wantSilence(t, "the upstream", upstream)
	send(t, client, s.Addr(), datagrams[0])
	recv(t, upstream)
	recv(t, upstream)
}

// TestQUIC0RTTFirst checks that 0-RTT packets before the ClientHello, and in the same datagram,
// are held and get to the upstream.
func TestQUIC0RTTFirst(t *testing.T) {
	upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String())})
	id := testID(8)
	early := longPacket(wire.Version1, 1, id, []byte("clnt"), 300)
	datagrams := initials(t, wire.Version1, id, quicHello(t, "a.test"), 2)
	sent := [][]byte{early, datagrams[1], append(datagrams[0], early...)}
	nettest.OnOneCPU(t, func() { send(t, client, s.Addr(), sent...) })
	for range sent { // the relay may send them on several CPUs
		got, _ := recv(t, upstream)
		i := slices.IndexFunc(sent, func(want []byte) bool { return bytes.Equal(got, want) })
		if i < 0 {
			t.Fatalf("the upstream got another datagram, or one twice: %x", got)
		}
		sent = slices.Delete(sent, i, i+1)
	}
}

// TestQUICHeldBound checks that a client cannot make the relay hold any number of datagrams, and
// that a ClientHello gets through all the same.
func TestQUICHeldBound(t *testing.T) {
	upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String())})
	id := testID(8)
	datagrams := initials(t, wire.Version1, id, quicHello(t, "a.test"), 2)
	send(t, client, s.Addr(), datagrams[1])
	for i := range 100 {
		send(t, client, s.Addr(), longPacket(wire.Version1, 1, id, []byte("clnt"), 1000+i))
	}
	wantDropped(t, s, DropHeld, 100-(maxHeldBytes-len(datagrams[1]))/1000+2)
}

// wantDropped waits until at least n datagrams were dropped for a reason.
func wantDropped(t testing.TB, s *Server, why Drop, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); s.Stats().QUIC.Dropped[why] < uint64(n)*8/10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v: %d datagrams were dropped, want about %d", why, s.Stats().QUIC.Dropped[why], n)
		}
	}
}

// TestQUICBadHello checks that hellos that lead nowhere are counted by their reason, and that
// the relay answers nothing.
func TestQUICBadHello(t *testing.T) {
	hello := quicHello(t, "a.test")
	long := append([]byte{1, 0, 0x41, 0}, make([]byte, 100)...)
	for name, test := range map[string]struct {
		hello []byte
		want  Failure
	}{
		"no route":          {quicHello(t, "b.test"), NoRoute},
		"another message":   {append([]byte{2}, hello[1:]...), HelloInvalid},
		"too long":          {long, HelloTooLong},
		"a name of a mile":  {quicHello(t, string(bytes.Repeat([]byte("a."), 200))), HelloInvalid},
		"a route that ends": {quicHello(t, "none.test"), NoRoute},
	} {
		t.Run(name, func(t *testing.T) {
			s := newQUICServer(t, &Config{Routes: append(routesTo("a.test", "127.0.0.1:1"), &Route{Names: []string{"none.test"}})})
			client := udpConn(t, "127.0.0.1:0")
			send(t, client, s.Addr(), initials(t, wire.Version1, testID(8), test.hello, 2)...)
			nettest.Eventually(t, test.want.String(), func() bool { return s.Stats().QUIC.Failed[test.want] >= 1 })
			wantSilence(t, "the client", client)
		})
	}
}

// TestQUICDrops checks that what is not the beginning of a connection is dropped without an
// answer, and counted by its reason.
func TestQUICDrops(t *testing.T) {
	hello := quicHello(t, "a.test")
	good := initials(t, wire.Version1, testID(8), hello, 2)[0]
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	for name, test := range map[string]struct {
		datagram []byte
		want     Drop
	}{
		"unknown ID":          {shortPacket(testID(8), 100), DropUnknownID},
		"one byte":            {[]byte{0x40}, DropUnknownID},
		"garbage":             {bytes.Repeat([]byte{0x17}, 1300), DropUnknownID},
		"handshake":           {longPacket(wire.Version1, 2, testID(8), nil, 1200), DropUnknownID},
		"Retry":               {longPacket(wire.Version1, 3, testID(8), nil, 1200), DropUnknownID},
		"cut":                 {good[:6], DropMalformed},
		"cut length":          {good[:1000], DropMalformed},
		"Version Negotiation": {longPacket(0, 0, testID(8), testID(8), 1200), DropMalformed},
		"unknown version":     {longPacket(0x1a2a3a4a, 0, testID(8), testID(8), 1200), DropVersion},
		"tampered":            {broken, DropUndecryptable},
		"short Initial":       {good[:0], DropShortInitial},
		"short ID":            {longPacket(wire.Version1, 0, testID(7), nil, 1200), DropUnknownID},
		"an ID of 21 bytes":   {longPacket(wire.Version1, 0, testID(21), nil, 1200), DropMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
			s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String())})
			datagram := test.datagram
			if len(datagram) == 0 {
				datagram = shortInitial(t)
			}
			send(t, client, s.Addr(), nil, datagram)
			nettest.Eventually(t, test.want.String(), func() bool { return s.Stats().QUIC.Dropped[test.want] == 1 })
			wantSilence(t, "the client", client)
			wantSilence(t, "the upstream", upstream)
			if st := s.Stats().QUIC; st.Flows != 0 || st.Accepted != 0 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// shortInitial returns an Initial in a datagram of less than 1200 bytes.
func shortInitial(t *testing.T) []byte {
	t.Helper()
	return longPacket(wire.Version1, 0, testID(8), nil, 1199)
}

// TestQUICUnknownVersion checks that packets of unknown versions go to the route "*", whose
// upstream can answer, and that the answer gets to the client.
func TestQUICUnknownVersion(t *testing.T) {
	upstream, client := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", "127.0.0.1:1", "*", addrOf(upstream).String())})
	id := testID(8)
	packet := longPacket(0x1a2a3a4a, 0, id, []byte("clnt"), 1200)
	send(t, client, s.Addr(), packet)
	got, from := recv(t, upstream)
	if !bytes.Equal(got, packet) {
		t.Error("the upstream got another packet")
	}
	answer := append(longPacket(0, 0, []byte("clnt"), id, 0)[:7+4+8], 0, 0, 0, 1)
	send(t, upstream, from, answer)
	if got, _ := recv(t, client); !bytes.Equal(got, answer) {
		t.Errorf("the client got %x, want %x", got, answer)
	}
	if st := s.Stats().QUIC; st.Waiting != 1 {
		t.Errorf("got %+v", st)
	}
}

// TestQUICRouter checks that a Router sees the version, and can send packets of an unknown one
// somewhere.
func TestQUICRouter(t *testing.T) {
	upstream := udpConn(t, "127.0.0.1:0")
	route := &Route{Names: []string{"x"}, Upstreams: []string{addrOf(upstream).String()}}
	hellos := make(chan Hello, 2)
	s := newQUICServer(t, &Config{Router: func(_ context.Context, h *Hello) (*Route, error) {
		hellos <- *h
		return route, nil
	}})
	client := udpConn(t, "127.0.0.1:0")
	send(t, client, s.Addr(), longPacket(0x1a2a3a4a, 0, testID(8), []byte("clnt"), 1200))
	recv(t, upstream)
	if h := <-hellos; h.TLS || h.QUICVersion != 0x1a2a3a4a || h.Client != addrOf(client) || h.Server != s.Addr() {
		t.Errorf("got %+v", h)
	}
	newPair(t, s, upstream, "A.test.", client)
	if h := <-hellos; !h.TLS || h.QUICVersion != 1 || h.ServerName != "a.test" || !slices.Equal(h.ALPN, []string{"h3"}) {
		t.Errorf("got %+v", h)
	}
}
