package relay

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

const victimAddr = "203.0.113.9:53"

// reflection counts the packets that an attacker sends with a forged address, and those
// that the relay sends to that address.
type reflection struct{ sent, got atomic.Int64 }

// forge makes a client send its packets with the victim's address, and counts them. The
// victim answers nothing.
func (l *lab) forge(conn *nettest.Conn) *reflection {
	r, victim := &reflection{}, netip.MustParseAddrPort(victimAddr)
	l.net.Filter(func(p nettest.Packet) bool {
		switch victim {
		case p.From:
			r.sent.Add(int64(len(p.Data)))
		case p.To:
			r.got.Add(int64(len(p.Data)))
			return false
		}
		return true
	})
	l.net.Rebind(conn, victimAddr)
	return r
}

// want fails unless exactly these packets have arrived.
func (r *reflection) want(t *lab) {
	t.Helper()
	sent, got := r.sent.Load(), r.got.Load()
	if sent == 0 || got > 3*sent {
		t.Errorf("%d bytes with a forged address have caused %d bytes to it, want at most three times as many", sent, got)
	}
}

// TestForgedMoveIsNotAmplified checks that an attacker that forges a migration does not
// make the relay send more than three times as much to the forged address. QUIC sends path
// probes of 1200 bytes to it (RFC 9000 §8.2.1).
func TestForgedMoveIsNotAmplified(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		time.Sleep(time.Second)
		r := l.forge(p.conn.Conn)
		time.Sleep(25 * time.Second)
		r.want(l)
		if l.server.Stats().Dropped[DropAmplification] == 0 {
			t.Error("packets that were not sent are not counted")
		}
	})
}

// TestIdleClientMoves checks that the relay finds an authenticated client at its new
// address after a NAT rebinding, even if the client only sends keep-alives.
func TestIdleClientMoves(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		asks := func() {
			t.Helper()
			status, _ := p.do("GET", "/v1/offers/a?wait=0", "Bearer "+l.server.Token(), nil)
			wantStatus(l, "request", status, http.StatusNoContent)
		}
		asks()
		time.Sleep(time.Second)
		for i := range 5 {
			l.net.Rebind(p.conn.Conn, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.77"), uint16(1000+i)).String())
			time.Sleep(time.Minute)
			if err := context.Cause(p.quic.Context()); err != nil {
				t.Fatalf("the connection has ended at move %d: %v", i, err)
			}
		}
		asks()
	})
}

// keptToken is a token store that shows the same token again and again.
type keptToken struct {
	token atomic.Pointer[quic.ClientToken]
}

func (k *keptToken) Pop(string) *quic.ClientToken          { return k.token.Load() }
func (k *keptToken) Put(_ string, token *quic.ClientToken) { k.token.CompareAndSwap(nil, token) }

// dialOn connects to the relay.
func (l *lab) dialOn(ctx context.Context, conn *nettest.Conn, tokens quic.TokenStore) (*quic.Conn, error) {
	tr := &quic.Transport{Conn: conn}
	l.Cleanup(func() { tr.Close() })
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, CurvePreferences: []tls.CurveID{tls.X25519}}
	return tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relayAddr)), conf, &quic.Config{TokenStore: tokens, InitialPacketSize: 1200})
}

// tokenOf returns a token that the owner of an address has got.
func (l *lab) tokenOf(ip string) *keptToken {
	l.Helper()
	kept := &keptToken{}
	conn := l.net.Listen(ip + ":999")
	defer conn.Close()
	qc, err := l.dialOn(context.Background(), conn, kept)
	if err != nil {
		l.Fatal(err)
	}
	time.Sleep(time.Second)
	qc.CloseWithError(0, "")
	if kept.token.Load() == nil {
		l.Fatal("the relay has sent no token")
	}
	time.Sleep(time.Second)
	return kept
}

// TestForgedTokenIsNotAmplified checks that an attacker that shows a token for a forged
// address, which it once had, does not make the relay send more than three times as much.
func TestForgedTokenIsNotAmplified(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		tokens := l.tokenOf("203.0.113.9")
		conn := l.net.Listen("198.51.100.66:1")
		defer conn.Close()
		r, first := l.forge(conn), true
		inner, victim := l.net, netip.MustParseAddrPort(victimAddr)
		inner.Filter(func(p nettest.Packet) bool {
			switch victim {
			case p.From:
				if !first {
					return false
				}
				first = false
				r.sent.Add(int64(len(p.Data)))
			case p.To:
				r.got.Add(int64(len(p.Data)))
				return false
			}
			return true
		})
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if _, err := l.dialOn(ctx, conn, tokens); err == nil {
			t.Error("an attacker with a forged address has connected")
		}
		r.want(l)
	})
}

// TestForgedTokensLockNobodyOut checks that handshakes with forged addresses and valid
// tokens for them do not use up the connections of those addresses.
func TestForgedTokensLockNobodyOut(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		tokens := l.tokenOf("203.0.113.9")
		l.net.Filter(func(p nettest.Packet) bool {
			return p.To.Addr() != netip.MustParseAddr("203.0.113.9") || p.To.Port() > 1000
		})
		for i := range uint16(500) {
			conn := l.net.Listen(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), 1+i).String())
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			_, _ = l.dialOn(ctx, conn, tokens)
			cancel()
		}
		synctest.Wait()
		if half := l.server.control.gate.handshake; half > retryFromSource+maxAnsweredEach {
			t.Errorf("%d handshakes of one address were admitted", half)
		}
		honest := l.net.Listen("203.0.113.9:2000")
		defer honest.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		qc, err := l.dialOn(ctx, honest, nil)
		if err != nil {
			t.Fatalf("the owner of the address cannot connect: %v", err)
		}
		qc.CloseWithError(0, "")
		time.Sleep(15 * time.Second)
	})
}

// TestSendErrorsEndNoConnection checks that any error of a write counts as a lost packet,
// and does not end the connection.
func TestSendErrorsEndNoConnection(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		relay := l.server.sockets.all[0].Conn().(*nettest.Conn)
		relay.Unreachable(true)
		time.Sleep(12 * time.Second) // a keep-alive is not answered
		relay.Unreachable(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if l.server.control.gate.total != 1 {
			t.Error("the relay has closed the connection")
		}
		if l.server.Stats().Dropped[DropSend] == 0 {
			t.Error("packets that could not be sent are not counted")
		}
		status, _ := p.do("GET", "/v1/offers/a?wait=0", "Bearer "+l.server.Token(), nil)
		wantStatus(l, "request", status, http.StatusNoContent)
	})
}
