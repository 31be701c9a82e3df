package relay

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
)

// TestReplayedRegistration checks that copies of all packets of a client, which resumes its
// TLS session and would send early data, register nothing and move no leg. The relay takes
// no early data, and so a copy cannot complete a handshake.
func TestReplayedRegistration(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice := l.peer()
		at := netip.MustParseAddrPort(relayAddr)
		var sent []nettest.Packet
		record := func(p nettest.Packet) bool {
			if p.To == at {
				sent = append(sent, p)
			}
			return true
		}
		conf := &tls.Config{
			InsecureSkipVerify: true,
			NextProtos:         []string{http3.NextProtoH3},
			Certificates:       []tls.Certificate{alice.cert},
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		for _, resumed := range []bool{false, true} {
			alice.quic.CloseWithError(0, "")
			time.Sleep(time.Second)
			l.net.Filter(record)
			conn, err := alice.transport.DialEarly(context.Background(), net.UDPAddrFromAddrPort(at), conf, nil)
			if err != nil {
				l.Fatal(err)
			}
			alice.quic, alice.http = conn, (&http3.Transport{}).NewClientConn(conn)
			alice.mustRegister(control.NewSessionID(), control.Register{Key: cid.NewKey()}, l.server.Token())
			if state := conn.ConnectionState(); state.Used0RTT || state.TLS.DidResume != resumed {
				l.Errorf("early data: %t, resumed: %t, want no early data, and %t", state.Used0RTT, state.TLS.DidResume, resumed)
			}
			time.Sleep(time.Second) // until the ticket is there
			l.net.Filter(nil)
		}
		remotes := func() map[string]netip.AddrPort {
			at := make(map[string]netip.AddrPort)
			for s := range l.server.Sessions() {
				at[s.ID] = s.Legs[0].Remote
			}
			return at
		}
		before, legs := l.server.Stats(), remotes()
		for _, from := range []string{"203.0.113.66:666", "198.51.100.1:1000"} {
			for _, p := range sent {
				p.From = netip.MustParseAddrPort(from)
				l.net.Inject(p)
			}
			time.Sleep(10 * time.Second)
		}
		after := l.server.Stats()
		if after.Registered != before.Registered || after.Moved != before.Moved || !maps.Equal(remotes(), legs) {
			l.Errorf("copies have changed %+v to %+v", before, after)
		}
		if after.ControlPackets == before.ControlPackets {
			l.Error("no copy has arrived")
		}
	})
}
