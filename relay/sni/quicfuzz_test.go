package sni

import (
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// FuzzQUICAttempt checks that no datagrams break the reader of Initials, and that what it keeps is
// bounded.
func FuzzQUICAttempt(f *testing.F) {
	id := []byte("originID")
	hello := quicHello(f, "a.test")
	for parts := 1; parts <= 4; parts++ {
		for _, d := range initials(f, wire.Version1, id, hello, parts) {
			f.Add(d, []byte{0x06, 0, 4, 1, 0, 0, 0}, uint8(0))
		}
	}
	f.Add(initials(f, wire.Version2, id, hello, 1)[0], []byte{0x06, 0x7f, 0xff, 1, 1}, uint8(1))
	f.Add([]byte{}, append([]byte{0x06, 0x40, 100, 0x44, 0}, make([]byte, 1024)...), uint8(2))
	f.Fuzz(func(t *testing.T, datagram, frames []byte, kind uint8) {
		v := []wire.Version{wire.Version1, wire.Version2, 0xff00001d}[kind%3]
		keys, err := v.Dialect().InitialKeys(id, wire.Client)
		if err != nil {
			t.Fatal(err)
		}
		a := &attempt{id: idOf(id), version: v, dialect: v.Dialect(), keys: keys}
		_ = a.read(datagram) // an error is an answer as well
		if len(frames) < 16<<10 {
			_ = a.read(sealed(t, v, id, id, 0, append(frames, 0, 0, 0, 0)))
		}
		if msg, err := a.message(); err == nil && len(msg) > wire.MaxClientHello {
			t.Errorf("a ClientHello of %d bytes", len(msg))
		}
	})
}

// FuzzQUICDatagrams gives a shard datagrams of several clients and of the upstream, and checks that
// the table stays consistent and bounded.
func FuzzQUICDatagrams(f *testing.F) {
	id := []byte("originID")
	hello := quicHello(f, "a.test")
	one, two := initials(f, wire.Version1, id, hello, 1)[0], initials(f, wire.Version1, id, hello, 2)
	f.Add(one, longPacket(wire.Version1, 2, []byte("clnt"), []byte("upstream"), 1200), longPacket(wire.Version1, 2, []byte("upstream"), []byte("clnt"), 100), uint16(0))
	f.Add(two[1], two[0], shortPacket([]byte("upstream"), 100), uint16(1200))
	f.Add(longPacket(0x1a2a3a4a, 0, id, id, 1200), one, two[0], uint16(1))
	f.Add(append(two[0], shortPacket(id, 300)...), two[1], []byte{0x40}, uint16(50))
	f.Fuzz(func(t *testing.T, a, b, c []byte, segment uint16) {
		upstream := udpConn(t, "127.0.0.1:0")
		s, err := Listen(t.Context(), "udp", "127.0.0.1:0", &Config{
			Shards: 1, MaxWaiting: 4, MaxConnections: 4, Routes: routesTo("a.test", addrOf(upstream).String(), "*", addrOf(upstream).String()),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer checkEmpty(t, s)
		defer s.Close()
		sh := s.quic.shards[0]
		for i, data := range [][]byte{a, b, c, a, c, b, c} {
			client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(40000+i%2))
			m := udp.Message{Data: data, SegmentSize: int(segment), Remote: client}
			if m.SegmentSize >= len(data) {
				m.SegmentSize = 0
			}
			sh.mu.Lock()
			sh.now++
			sh.sort(&m)
			sh.flush()
			var flows []*flow
			for _, p := range sh.peers {
				flows = append(flows, p.flows...)
			}
			sh.mu.Unlock()
			for _, f := range flows {
				if member := f.member.Load(); member != nil && len(b) > 0 {
					sh.answers([]udp.Received{{Member: member, Owner: f, Message: udp.Message{Data: b}}})
				}
			}
			if st := s.Stats().QUIC; st.Waiting > 4 || st.Flows > 8 {
				t.Errorf("got %+v", st)
			}
		}
	})
}
