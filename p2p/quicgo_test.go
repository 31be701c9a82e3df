package p2p

import (
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// Tests of behavior of quic-go that this package depends on.

// TestConnectionsKeepTheirPacketSize checks that the initial packet size is set.
// Otherwise quic-go falls back to 1200 bytes on each new path.
func TestConnectionsKeepTheirPacketSize(t *testing.T) {
	conf, err := (&Config{}).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got := conf.quicConfig().InitialPacketSize; got != packetSize {
		t.Errorf("packets of %d bytes, want %d", got, packetSize)
	}
	conf.QUIC = &quic.Config{InitialPacketSize: 1300, HandshakeIdleTimeout: time.Second, KeepAlivePeriod: time.Second}
	got := conf.quicConfig()
	if got.InitialPacketSize != 1300 {
		t.Errorf("packets of %d bytes, want 1300", got.InitialPacketSize)
	}
	if got.HandshakeIdleTimeout != conf.OfferTTL || got.KeepAlivePeriod != 0 {
		t.Errorf("handshake within %v, keepalive %v", got.HandshakeIdleTimeout, got.KeepAlivePeriod)
	}
	if conf.QUIC.HandshakeIdleTimeout != time.Second {
		t.Error("the user's configuration was changed")
	}
}

// TestTransportsAgreeOnECN checks that all transports of a connection support ECN, or
// none. quic-go decides about ECN at the beginning, and panics if the conn of a later
// path does not support it.
func TestTransportsAgreeOnECN(t *testing.T) {
	udpConn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.PacketConn{
		"kernel":     udpConn,
		"in process": nettest.New(1).Listen("127.0.0.1:1"),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := NewEndpoint(nil, conn)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			relay := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			h := &relayClient{endpoint: e}
			h.moved(relay)
			var oob []bool
			for range 2 {
				l, err := newLink(h, [16]byte{}, 0, "")
				if err != nil {
					t.Fatal(err)
				}
				defer l.close()
				_, ok := l.transport.Conn.(quic.OOBCapablePacketConn)
				oob = append(oob, ok)
			}
			if oob[0] != oob[1] {
				t.Errorf("transports are OOB-capable: %v", oob)
			}
		})
	}
}

// TestIDsHaveOneLength checks that all connection IDs have the length that transports
// expect. They would not receive other packets.
func TestIDsHaveOneLength(t *testing.T) {
	runLab(t, func(l *lab) {
		short := 0
		l.net.Filter(func(p nettest.Packet) bool {
			for h, err := range wire.Packets(p.Data, cid.Len) {
				if err == nil && wire.IsLong(h.First) && len(h.SrcID) != cid.Len {
					short++
				}
			}
			return true
		})
		a, b := l.connect(l.host(nil), l.host(nil))
		l.exchange(a, b, 1000)
		l.net.Filter(nil)
		if short > 0 {
			l.Errorf("%d packets name an ID that has not %d bytes", short, cid.Len)
		}
	})
}

// TestFirstIDIsRegistered checks that the accepter registers the random first
// Destination Connection ID of an offer, so that the relay forwards what the dialer
// sends again with it.
func TestFirstIDIsRegistered(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		offer, _ := l.offer(alice, bob.ID())
		id, err := offer.initialID()
		if err != nil || id.Len() < 8 {
			l.Fatalf("first ID %v, %v", id, err)
		}
		got := 0
		l.net.Filter(func(p nettest.Packet) bool {
			if dst, err := wire.DstID(p.Data, cid.Len); err == nil && p.To == bob.conn.LocalAddr().(*net.UDPAddr).AddrPort() && string(dst) == string(id.Bytes()) {
				got++
			}
			return true
		})
		link, err := bob.openAnswer(l.Context(), &offer)
		if err == nil {
			err = link.join(l.Context(), joinPatience) // and does not answer
		}
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		l.net.Filter(nil)
		if got == 0 {
			l.Error("nothing that is sent to the first ID comes through")
		}
	})
}

// TestTransportsListenOnce checks that each accepted connection has a transport of its
// own, because a transport can listen once, and that none is left behind.
func TestTransportsListenOnce(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		for range 5 {
			a, b := l.connect(alice, bob)
			l.exchange(a, b, 1000)
			a.CloseWithError(0, "")
			l.closed(b)
		}
		time.Sleep(closeLinger + time.Second)
		for name, h := range map[string]*host{"alice": alice, "bob": bob} {
			h.mux.mu.RLock()
			if n := len(h.mux.links); n != 0 {
				l.Errorf("%s still routes %d IDs", name, n)
			}
			h.mux.mu.RUnlock()
		}
	})
}
