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

// What quic-go does that a connection over a relay would trip over, and that
// other tests do not show.

// TestConnectionsKeepTheirPacketSize: quic-go falls back to packets of 1200
// bytes on a new path unless it is told another size.
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

// TestTransportsAreOfOneClass: quic-go decides when a connection begins whether
// it marks packets with ECN, and panics if a later path's conn cannot.
func TestTransportsAreOfOneClass(t *testing.T) {
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

// TestIDsHaveOneLength: a transport that expects IDs of another length never
// hears a packet.
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

// TestFirstIDIsRegistered: the first Destination Connection ID is drawn at
// random, so that the accepter tells the relay the one in the offer. What the
// dialer sends again to that ID then comes through.
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
		if _, err := bob.join(l.Context(), &offer); err != nil { // and does not answer
			l.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		l.net.Filter(nil)
		if got == 0 {
			l.Error("nothing that is sent to the first ID comes through")
		}
	})
}

// TestTransportsListenOnce: a transport takes one Listen, so each connection
// has its own, and none is left behind.
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
