package monitor

import (
	"crypto/tls"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

var (
	v1 = []quic.Version{quic.Version1}
	v2 = []quic.Version{quic.Version2}
)

// TestConnection checks what is known of each kind of handshake that quic-go makes.
func TestConnection(t *testing.T) {
	for _, test := range []struct {
		name           string
		client, server []quic.Version
		curves         []tls.CurveID
		sni            string
		retry, resume  bool
		want           func(*Connection) bool
		version        wire.Version
	}{
		{name: "v1", client: v1, server: v1, version: wire.Version1,
			want: func(c *Connection) bool { return c.PostQuantum && c.Group == "X25519MLKEM768" && !c.ECH }},
		{name: "v2", client: v2, server: v2, version: wire.Version2,
			want: func(c *Connection) bool { return c.Retries == 0 && c.Negotiations == 0 }},
		{name: "x25519", client: v1, server: v1, curves: []tls.CurveID{tls.X25519}, version: wire.Version1,
			want: func(c *Connection) bool { return !c.PostQuantum && c.Group == "x25519" }},
		{name: "long SNI", client: v1, server: v1, sni: strings.Repeat("long.", 48) + "example", version: wire.Version1},
		{name: "Retry v1", client: v1, server: v1, retry: true, version: wire.Version1,
			want: func(c *Connection) bool { return c.Retries > 0 && len(c.OriginalIDs) >= 2 }},
		{name: "Retry v2", client: v2, server: v2, retry: true, version: wire.Version2,
			want: func(c *Connection) bool { return c.Retries > 0 && len(c.OriginalIDs) >= 2 }},
		{name: "negotiation", client: []quic.Version{quic.Version2, quic.Version1}, server: v1, version: wire.Version1,
			want: func(c *Connection) bool {
				return c.Negotiations >= 1 && slices.Equal(c.Versions, []Version{Version(wire.Version2), Version(wire.Version1)})
			}},
		{name: "0-RTT", client: v1, server: v1, resume: true, version: wire.Version1,
			want: func(c *Connection) bool { return c.ZeroRTT > 0 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := 0
			all := play(t, &quic.Config{Versions: test.server}, test.retry, func(s *scene) {
				s.tls.CurvePreferences = test.curves
				if test.sni != "" {
					s.tls.ServerName = test.sni
				}
				for range 2 {
					conn := s.dial(&quic.Config{Versions: test.client})
					s.exchange(conn, 5000)
					synctest.Wait()
					conn.CloseWithError(0, "")
					time.Sleep(time.Second) // on the fake clock, until both sides have closed
					if !test.resume {
						return
					}
					s.mu.Lock()
					if begin == 0 {
						begin = len(s.sent)
					}
					s.mu.Unlock()
				}
			})
			all = all[begin:]
			tracker := newTracker(t, nil)
			track(tracker, all)
			c := only(t, tracker)
			name := serverName
			if test.sni != "" {
				name = test.sni
			}
			if c.Confidence != Proven || c.Version != Version(test.version) {
				t.Errorf("got %v %v, want proven %v", c.Confidence, c.Version, test.version)
			}
			if c.ServerName != name || !slices.Equal(c.ALPN, []string{protocol}) || c.TLSVersion != "1.3" || c.Cipher == "" {
				t.Fatalf("got %+v, want SNI %q and ALPN %q", c.TLS, name, protocol)
			}
			if !strings.HasPrefix(c.JA4, "q13d03") || len(c.JA4) != 36 {
				t.Errorf("got JA4 %q", c.JA4)
			}
			if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
				t.Errorf("got %d packets, want %d", got, len(all))
			}
			if len(c.Paths) != 1 || len(c.PathChanges) != 0 || c.Paths[0].Client.String() != clientAddr || c.Paths[0].Server.String() != serverAddr {
				t.Errorf("got paths %v, changes %v", c.Paths, c.PathChanges)
			}
			if test.want != nil && !test.want(c) {
				t.Errorf("got %+v", c)
			}
			if stats := tracker.Stats(); stats.Other != 0 || stats.Bogus != 0 || stats.Malformed != 0 {
				t.Errorf("got %+v", stats)
			}
		})
	}
}

// TestHandshakeRTT checks the halves of the handshake's round trip in a capture at
// the client.
func TestHandshakeRTT(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100) })
	answers := 0
	for i := range all { // as captured at the client
		if all[i].from.String() != serverAddr {
			continue
		}
		if all[i].at = all[i].at.Add(oneWay); answers > 0 {
			all[i].at = all[i].at.Add(time.Millisecond) // only the first answer counts
		}
		answers++
	}
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	if got := c.Handshake.ServerSide.Duration(); got != 2*oneWay {
		t.Errorf("got %v to the server and back, want %v", got, 2*oneWay)
	}
	if got := c.Handshake.ClientSide.Duration(); got != 0 {
		t.Errorf("got %v to the client and back, want none", got)
	}
}

// atClient returns datagrams as they are captured at the client.
func atClient(all []sent) []sent {
	all = slices.Clone(all)
	for i := range all {
		if all[i].from.String() == serverAddr {
			all[i].at = all[i].at.Add(oneWay)
		}
	}
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	return all
}

// TestHandshakeAfterRetry checks that the halves are of one round trip each after a Retry, whatever
// comes once more.
func TestHandshakeAfterRetry(t *testing.T) {
	all := atClient(play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 100) }))
	retry := slices.IndexFunc(all, func(s sent) bool { return s.from.String() == serverAddr })
	again := func(i int) []sent { // datagram i, a millisecond after the Initial that follows the Retry
		s := all[i]
		s.at = all[retry+1].at.Add(time.Millisecond)
		out := append(slices.Clone(all), s)
		slices.SortStableFunc(out, func(a, b sent) int { return a.at.Compare(b.at) })
		return out
	}
	for name, all := range map[string][]sent{
		"once":                     all,
		"the first Initial again":  again(0),
		"the second Initial again": again(retry + 1),
		"the Retry again":          again(retry),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		c := only(t, tracker)
		if got := c.Handshake.ServerSide.Duration(); got != 2*oneWay || c.Retries == 0 {
			t.Errorf("%s: got %v after %d Retries, want %v", name, got, c.Retries, 2*oneWay)
		}
	}
}

// TestHandshakeAfterNegotiation checks the same after a Version Negotiation.
func TestHandshakeAfterNegotiation(t *testing.T) {
	for name, retry := range map[string]bool{"alone": false, "and a Retry": true} {
		tracker := newTracker(t, nil)
		track(tracker, atClient(play(t, &quic.Config{Versions: v1}, retry, func(s *scene) {
			s.exchange(s.dial(&quic.Config{Versions: []quic.Version{quic.Version2, quic.Version1}}), 100)
		})))
		c := only(t, tracker)
		if got := c.Handshake.ServerSide.Duration(); got != 2*oneWay || c.Negotiations == 0 || c.Retries > 0 != retry {
			t.Errorf("%s: got %v after %d Version Negotiations and %d Retries, want %v", name, got, c.Negotiations, c.Retries, 2*oneWay)
		}
	}
}

// TestRotation checks that changes of connection IDs on one path are no changes of
// path.
func TestRotation(t *testing.T) {
	all := play(t, nil, false, func(s *scene) {
		conn := s.dial(nil)
		for range 3 {
			s.exchange(conn, 12<<20)
		}
	})
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	if c.Rotations == 0 {
		t.Errorf("no rotation in %d packets", len(all))
	}
	if len(c.PathChanges) != 0 || len(c.Paths) != 1 {
		t.Errorf("got changes %v, paths %v", c.PathChanges, c.Paths)
	}
	if stats := tracker.Stats(); stats.Other > 2 {
		t.Errorf("%d of %d datagrams were not counted", stats.Other, len(all))
	}
}

// TestRebinding checks that another port or address from a NAT is a rebinding.
func TestRebinding(t *testing.T) {
	for _, test := range []struct {
		to    string
		kind  ChangeKind
		level Level
	}{
		{"192.0.2.1:50001", Rebinding, High},
		{"192.0.2.99:50001", Rebinding, Medium},
		{"203.0.113.7:50001", Migration, Medium},
	} {
		t.Run(test.to, func(t *testing.T) {
			all := play(t, nil, false, func(s *scene) {
				conn := s.dial(nil)
				s.exchange(conn, 50000)
				synctest.Wait()
				s.network.Rebind(s.client, test.to)
				s.exchange(conn, 50000)
			})
			tracker := newTracker(t, nil)
			track(tracker, all)
			c := only(t, tracker)
			if got := kinds(c); !slices.Equal(got, []ChangeKind{test.kind}) {
				t.Fatalf("got changes %v, want %v", got, test.kind)
			}
			change := c.PathChanges[0]
			if change.From.String() != clientAddr || change.To.String() != test.to || change.Confidence != test.level {
				t.Errorf("got %+v", change)
			}
			if active := c.Paths[len(c.Paths)-1]; !active.Active || active.Client.String() != test.to || !active.Validated {
				t.Errorf("got active path %+v", active)
			}
		})
	}
}

// TestMigration checks that a client which probes another path with new IDs and
// moves to it has migrated.
func TestMigration(t *testing.T) {
	for _, second := range []string{"192.0.2.1:50002", "203.0.113.7:50002"} {
		t.Run(second, func(t *testing.T) {
			all := play(t, nil, false, func(s *scene) { s.migrate(second) })
			tracker := newTracker(t, nil)
			track(tracker, all)
			c := only(t, tracker)
			if got, want := kinds(c), []ChangeKind{Probe, Migration}; !slices.Equal(got, want) {
				t.Errorf("got changes %v, want %v", got, want)
			}
			// From another address only the timing shows it.
			want := Medium
			if second != "192.0.2.1:50002" {
				want = Low
			}
			for _, change := range c.PathChanges {
				if change.Confidence != want || change.Evidence == "" {
					t.Errorf("got %+v, want %v confidence", change, want)
				}
			}
			if len(c.Paths) != 2 || !c.Paths[1].Active {
				t.Errorf("got paths %+v", c.Paths)
			}
		})
	}
}

// TestMidFlow checks a capture that begins after the handshake.
func TestMidFlow(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 200000) })
	late := slices.DeleteFunc(slices.Clone(all), func(s sent) bool { return wire.IsLong(s.data[0]) })
	tracker := newTracker(t, nil)
	track(tracker, late)
	c := only(t, tracker)
	if c.Confidence != MidFlow || len(c.ServerIDs) == 0 || len(c.ServerIDs[0]) != 16 {
		t.Errorf("got %v with server IDs %v, want midflow and 8 bytes", c.Confidence, c.ServerIDs)
	}
	if events := tracker.take(); len(events) != 1 || events[0].Kind != EventNew || events[0].Connection.Number != c.Number {
		t.Errorf("got events %v, want EventNew", events)
	}
	if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(late)) {
		t.Errorf("got %d packets, want %d", got, len(late))
	}
}

// TestMidFlowRoles checks which end of a connection that began before the capture is the server, on any ports,
// whoever is seen first, and that the evidence says from what that follows.
func TestMidFlowRoles(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 200000) })
	late := slices.DeleteFunc(slices.Clone(all), func(s sent) bool { return wire.IsLong(s.data[0]) })
	first := func(from string) int {
		return slices.IndexFunc(late, func(s sent) bool { return s.from.String() == from })
	}
	for _, from := range []string{clientAddr, serverAddr} {
		for port, by := range map[uint16]string{443: byPort, 853: byPort, 4433: byPort, 20000: byPort} {
			moved := slices.Clone(late[first(from):])
			for i := range moved {
				for _, end := range []*netip.AddrPort{&moved[i].from, &moved[i].to} {
					if end.Port() == 443 {
						*end = netip.AddrPortFrom(end.Addr(), port)
					}
				}
			}
			tracker := newTracker(t, nil)
			track(tracker, moved)
			if c := only(t, tracker); c.Paths[0].Client.String() != clientAddr || !strings.HasSuffix(c.Evidence, "; "+by) {
				t.Errorf("from %s, port %d: got client %v: %s", from, port, c.Paths[0].Client, c.Evidence)
			}
		}
	}
}

// TestSharedEndpoints checks that connections between the same two sockets are told
// apart.
func TestSharedEndpoints(t *testing.T) {
	const n = 3
	all := play(t, nil, false, func(s *scene) {
		for i := range n {
			s.tls = s.tls.Clone()
			s.tls.ServerName = fmt.Sprintf("%d.example", i)
			conn := s.dial(nil)
			s.exchange(conn, 100000)
			defer s.exchange(conn, 100000)
		}
	})
	tracker := newTracker(t, nil)
	track(tracker, all)
	conns := connections(tracker)
	if len(conns) != n {
		t.Fatalf("got %d connections, want %d", len(conns), n)
	}
	lo, hi := uint64(math.MaxUint64), uint64(0)
	for _, c := range conns {
		lo, hi = min(lo, c.FromServer.Bytes), max(hi, c.FromServer.Bytes)
	}
	if lo < 200000 || hi > 300000 {
		t.Errorf("got %d to %d bytes of a connection, want a little more than 200000 of each", lo, hi)
	}
}

// TestSnaplen checks that packets that were captured in part are counted in full.
func TestSnaplen(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 50000) })
	whole, cut := newTracker(t, nil), newTracker(t, nil)
	for _, s := range all {
		p := frame(s)
		whole.Packet(p)
		if !wire.IsLong(s.data[0]) {
			p.Data = p.Data[:min(len(p.Data), 28+64)]
		}
		cut.Packet(p)
	}
	a, b := only(t, whole), only(t, cut)
	if a.FromClient != b.FromClient || a.FromServer != b.FromServer {
		t.Errorf("got %v %v, want %v %v", b.FromClient, b.FromServer, a.FromClient, a.FromServer)
	}
}

// TestSegments checks that datagrams that GRO has put together are counted as they
// were sent, whether the size of the segments is known or not.
func TestSegments(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 300000) })
	apart, told, guessed := newTracker(t, nil), newTracker(t, nil), newTracker(t, nil)
	track(apart, all)
	want := only(t, apart)
	for i := 0; i < len(all); {
		train := all[i]
		size := len(train.data)
		n := 1
		for ; size > 1000 && !wire.IsLong(train.data[0]) && i+n < len(all) && n < 20; n++ {
			next := all[i+n]
			if next.from != train.from || wire.IsLong(next.data[0]) || len(next.data) > size || len(next.data) < 600 || len(all[i+n-1].data) < size ||
				string(next.data[1:5]) != string(train.data[1:5]) {
				break
			}
			train.data = append(slices.Clip(train.data), next.data...)
		}
		i += n
		p := frame(train)
		guessed.Packet(p)
		if n > 1 {
			p.SegmentSize = size
		}
		told.Packet(p)
	}
	for name, tracker := range map[string]*Tracker{"told": told, "guessed": guessed} {
		c := only(t, tracker)
		if c.FromServer != want.FromServer || c.FromClient != want.FromClient {
			t.Errorf("%s: got %v %v, want %v %v", name, c.FromClient, c.FromServer, want.FromClient, want.FromServer)
		}
		if tracker.Stats().Split == 0 {
			t.Errorf("%s: nothing was split", name)
		}
	}
}

// TestCutHandshake checks that a connection is found, though not proven, if only
// the headers were captured.
func TestCutHandshake(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 20000) })
	tracker := newTracker(t, nil)
	for _, s := range all {
		p := frame(s)
		p.Data = p.Data[:min(len(p.Data), 28+80)]
		tracker.Packet(p)
	}
	c := only(t, tracker)
	if c.Confidence != HandshakeShaped || c.Version != Version(wire.Version1) || c.Handshake.ServerSide == 0 {
		t.Errorf("got %v %v, %+v, want a handshake of v1 with its round trip", c.Confidence, c.Version, c.Handshake)
	}
	if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
		t.Errorf("got %d packets, want %d", got, len(all))
	}
}

// TestReboundHandshake checks that a connection whose client gets another port
// during the handshake stays one connection.
func TestReboundHandshake(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 20000) })
	server := false
	for i := range all {
		other := netip.MustParseAddrPort("192.0.2.1:50009")
		switch {
		case all[i].from.String() == serverAddr && server:
			all[i].to = other
		case all[i].from.String() == serverAddr:
			server = true // its first answer
		case server:
			all[i].from = other
		}
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	if got := kinds(c); !slices.Equal(got, []ChangeKind{Rebinding}) {
		t.Errorf("got changes %v, want a rebinding", got)
	}
	if c.ServerName != serverName || c.Confidence != Proven {
		t.Errorf("got %v %+v", c.Confidence, c.TLS)
	}
}

// TestTwoPlaces checks that a connection that is captured before and behind a NAT
// is two connections, and that a move behind the NAT is no move before it.
func TestTwoPlaces(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 50000) })
	inside, outside := netip.MustParseAddrPort(clientAddr), netip.MustParseAddrPort("203.0.113.9:40000")
	server := netip.MustParseAddrPort("10.9.9.9:4433")
	tracker := newTracker(t, nil)
	for i, s := range all {
		tracker.Packet(frame(s))
		if i == len(all)/2 {
			outside = netip.MustParseAddrPort("203.0.113.9:40001") // the NAT rebinds
		}
		if s.from == inside {
			s.from, s.to = outside, server
		} else {
			s.from, s.to = server, outside
		}
		tracker.Packet(frame(s))
	}
	conns := connections(tracker)
	if len(conns) != 2 || conns[0].OriginalID != conns[1].OriginalID {
		t.Fatalf("got %d connections, want two with the same ID", len(conns))
	}
	for _, c := range conns {
		want := 0
		if c.Paths[0].Client != inside {
			want = 1
		}
		if len(c.Paths) != 1+want || len(c.PathChanges) != want || c.FromClient.Packets+c.FromServer.Packets != uint64(len(all)) {
			t.Errorf("got paths %v, changes %v", c.Paths, c.PathChanges)
		}
	}
}

// TestManyHandshakes checks that each handshake of quic-go is one connection.
func TestManyHandshakes(t *testing.T) {
	n := 1000
	if nettest.RaceDetector { // ten times as slow, and nothing here is concurrent
		n = 200
	}
	all := play(t, &quic.Config{Versions: v1}, false, func(s *scene) {
		for i := range n {
			socket := s.network.Listen(fmt.Sprintf("192.0.2.77:%d", 10_000+i))
			conf := &quic.Config{Versions: v1, DisablePathMTUDiscovery: true}
			conn, err := quic.DialEarly(s.t.Context(), socket, nettest.UDPAddr(netip.MustParseAddrPort(serverAddr)), s.tls, conf)
			if err != nil {
				s.t.Fatal(err)
			}
			s.exchange(conn, 100)
			conn.CloseWithError(0, "")
			time.Sleep(500 * time.Millisecond) // on the fake clock, until both sides have closed
			socket.Close()
		}
	})
	tracker := newTracker(t, &Config{Idle: time.Hour})
	track(tracker, all)
	got := 0
	for c := range tracker.Connections() {
		if got++; c.Confidence != Proven {
			t.Errorf("connection %d is %v, want %v", c.Number, c.Confidence, Proven)
		}
	}
	if got != n {
		t.Errorf("got %d connections, want %d", got, n)
	}
}

// TestInitialToNewID checks that an Initial with the keys of a handshake belongs to that handshake,
// though nobody has seen its connection ID: the server has sent the ID in an encrypted frame.
// A client without IDs of its own shows no other sign.
func TestInitialToNewID(t *testing.T) {
	first, newID, server := []byte("original"), []byte("from1rtt"), []byte("serverID")
	ack := []byte{0x02, 0, 0, 0, 0}
	all := []sent{
		at(0, clientAddr, serverAddr, initialOf(t, first, nil, 0, cryptoFrame(0, helloOf("early.example")))),
		at(20, serverAddr, clientAddr, sealed(t, wire.Version1, wire.Server, first, nil, server, 0, ack)),
		at(30, clientAddr, serverAddr, sealed(t, wire.Version1, wire.Client, first, server, nil, 1, ack)),
		at(40, clientAddr, serverAddr, sealed(t, wire.Version1, wire.Client, first, newID, nil, 2, ack)),
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	if c := only(t, tracker); c.FromClient.Packets != 3 || c.FromServer.Packets != 1 {
		t.Errorf("got %v from the client and %v from the server, want 3 and 1 packets", c.FromClient, c.FromServer)
	}
	// An Initial with the keys of its own ID is another connection's.
	forged := at(60, clientAddr, serverAddr, initialOf(t, []byte("forgedID"), nil, 2, cryptoFrame(0, helloOf("evil.example"))))
	track(tracker, []sent{forged})
	if n := len(connections(tracker)); n != 2 {
		t.Errorf("got %d connections, want 2", n)
	}
}
