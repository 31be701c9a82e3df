package quota

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// reflection counts the bytes that are sent with a forged address, and those that the
// server sends there.
type reflection struct{ sent, got atomic.Int64 }

// watch counts packets from and to a victim's address. It drops those to the victim, and
// those from it for which leaves, which gets the number of bytes before, returns false.
func (l *lab) watch(victim netip.Addr, leaves func(sent int64) bool) *reflection {
	r := &reflection{}
	l.net.Filter(func(p nettest.Packet) bool {
		switch {
		case p.From.Addr() == victim:
			if !leaves(r.sent.Load()) {
				return false
			}
			r.sent.Add(int64(len(p.Data)))
		case p.To.Addr() == victim:
			r.got.Add(int64(len(p.Data)))
			return false
		}
		return true
	})
	return r
}

// want checks that the server has sent at most three times as much as it got.
func (r *reflection) want(t *lab) {
	t.Helper()
	sent, got := r.sent.Load(), r.got.Load()
	if sent == 0 || got > 3*sent {
		t.Errorf("%d bytes with a forged address were answered with %d, want at most three times as many", sent, got)
	}
}

// TestForgedMoveIsNotAmplified checks that a forged migration does not make the server send
// more than three times what it got, though quic-go sends a PATH_CHALLENGE in 1200 bytes to
// the new address (RFC 9000 §8.2.1).
func TestForgedMoveIsNotAmplified(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := l.client("198.51.100.1")
		defer c.close()
		conn, err := c.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		const victim = "203.0.113.9:53"
		r := l.watch(addr(victim).Addr(), func(int64) bool { return true })
		l.net.Rebind(c.conn, victim)
		time.Sleep(20 * time.Second)
		r.want(l)
		if l.c.Stats().Withheld == 0 {
			t.Error("packets that were withheld are not counted")
		}
		conn.CloseWithError(0, "")
	})
}

// download dials a server that sends much data.
func (l *lab) download(c *client, at string) *quic.Conn {
	l.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	conn, err := c.transport.Dial(context.Background(), net.UDPAddrFromAddrPort(addr(at)), conf, &quic.Config{KeepAlivePeriod: time.Second})
	if err != nil {
		l.Fatal(err)
	}
	return conn
}

// listenOn listens on a transport of the controller, or on one that has only the conn of its
// packet filter.
func (l *lab) listenOn(pc net.PacketConn, ofController bool) (quicListener, func() error) {
	l.Helper()
	conf := &quic.Config{MaxIdleTimeout: time.Minute}
	if ofController {
		tr, err := l.c.Transport(&quic.Transport{Conn: pc})
		if err != nil {
			l.Fatal(err)
		}
		ln, err := tr.Listen(l.tls, conf)
		if err != nil {
			l.Fatal(err)
		}
		return ln, tr.Close
	}
	tr := &quic.Transport{Conn: l.c.PacketConn(pc, defaultIDLen)}
	ln, err := tr.Listen(l.tls, conf)
	if err != nil {
		l.Fatal(err)
	}
	return ln, tr.Close
}

// TestClientMigrates checks that a client that migrates during a large download gets all of
// it, with a Listener and without.
func TestClientMigrates(t *testing.T) {
	for _, follow := range []bool{true, false} {
		t.Run(fmt.Sprint(follow), func(t *testing.T) {
			const at = "192.0.2.2:443"
			const size = 4 << 20
			runLab(t, nil, func(l *lab) {
				pc := l.net.Listen(at)
				ln, closeTransport := l.listenOn(pc, follow)
				defer func() { closeTransport(); pc.Close(); synctest.Wait() }()
				go func() {
					conn, err := ln.Accept(context.Background())
					if err != nil {
						return
					}
					s, err := conn.AcceptStream(conn.Context())
					if err != nil {
						return
					}
					_, _ = s.Write(make([]byte, size))
					s.Close()
				}()
				c := l.client("198.51.100.1")
				defer c.close()
				conn := l.download(c, at)
				s, err := conn.OpenStream()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = s.Write([]byte("go"))
				time.Sleep(30 * time.Millisecond)
				l.net.Rebind(c.conn, "203.0.113.9:53")
				_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
				got, buf := 0, make([]byte, 1<<16)
				for err == nil {
					var n int
					n, err = s.Read(buf)
					got += n
				}
				if got != size {
					t.Errorf("%d bytes have come, want %d: %v", got, size, err)
				}
				conn.CloseWithError(0, "")
				time.Sleep(time.Second)
			})
		})
	}
}

// keptToken is a store of one token, which is used again and again.
type keptToken struct {
	token atomic.Pointer[quic.ClientToken]
}

func (k *keptToken) Pop(string) *quic.ClientToken          { return k.token.Load() }
func (k *keptToken) Put(_ string, token *quic.ClientToken) { k.token.CompareAndSwap(nil, token) }

// dialWith dials with a token, if there is one, and a first flight of one datagram.
func (l *lab) dialWith(ip string, tokens quic.TokenStore, patience time.Duration) error {
	c := l.client(ip)
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, CurvePreferences: []tls.CurveID{tls.X25519}}
	conn, err := c.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr(serverAddr)), conf, &quic.Config{TokenStore: tokens, InitialPacketSize: 1200})
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	return conn.CloseWithError(0, "")
}

// TestForgedTokenIsNotAmplified checks that the token of an address, which an earlier owner
// of the address has kept, does not make the server send more than three times what it got.
func TestForgedTokenIsNotAmplified(t *testing.T) {
	for _, conf := range []*Config{nil, {Overrides: []Override{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Exempt: true}}}} {
		runLab(t, conf, func(l *lab) {
			const ip = "203.0.113.9"
			tokens := &keptToken{}
			if err := l.dialWith(ip, tokens, 5*time.Second); err != nil || tokens.token.Load() == nil {
				t.Fatalf("no token: %v", err)
			}
			r := l.watch(netip.MustParseAddr(ip), func(sent int64) bool { return sent == 0 })
			if err := l.dialWith(ip, tokens, 15*time.Second); err == nil {
				t.Error("connected with a forged address")
			}
			time.Sleep(15 * time.Second)
			r.want(l)
		})
	}
}

// TestForgedTokensLockNobodyOut checks that attempts with a kept token do not use up the
// connections of its address.
func TestForgedTokensLockNobodyOut(t *testing.T) {
	for _, excess := range []Action{Refuse, Drop} {
		runLab(t, &Config{Excess: excess}, func(l *lab) {
			const ip = "203.0.113.9"
			tokens := &keptToken{}
			if err := l.dialWith(ip, tokens, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			l.watch(netip.MustParseAddr(ip), func(int64) bool { return true })
			for range 400 { // 500 a second
				_ = l.dialWith(ip, tokens, 2*time.Millisecond)
			}
			l.net.Filter(nil)
			for range 10 {
				if err := l.dialWith(ip, nil, 3*time.Second); err != nil {
					t.Errorf("%v: the owner of the address is kept out: %v", excess, err)
				}
			}
			time.Sleep(15 * time.Second)
		})
	}
}

// TestRetriedAttemptsHaveOwnPool checks that attempts with a Retry token have a pool of their
// own, and do not count as connections.
func TestRetriedAttemptsHaveOwnPool(t *testing.T) {
	c := mustNew(t, &Config{Source: Limits{Connections: 1000, HalfOpen: 10, ConnectionBurst: 1000, ConnectionRate: 1}})
	n := 0
	for range 100 {
		if slot, err := c.admission.admit(addr("192.0.2.1:1"), stageRetried, false); err == nil {
			defer slot.Release()
			n++
		}
	}
	wantLive(t, c, 0, 10)
	for range 100 {
		if slot, err := c.admission.admit(addr("192.0.2.1:1"), stageUnvalidated, false); err == nil {
			defer slot.Release()
			n++
		}
	}
	wantLive(t, c, 0, 20)
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew).Release()
}

// failing is a conn whose writes fail while err is set.
type failing struct {
	net.PacketConn
	err atomic.Pointer[error]
}

func (f *failing) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := f.err.Load(); err != nil {
		return 0, *err
	}
	return f.PacketConn.WriteTo(b, to)
}

// TestSendErrorsEndNoConnection checks that an error of the system when the server sends a
// packet is counted, and does not end the connection.
func TestSendErrorsEndNoConnection(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		var below *failing
		l := newLab(t, nil, func(_ *lab, conn net.PacketConn) net.PacketConn {
			below = &failing{PacketConn: conn}
			return below
		})
		defer l.close()
		c := l.client("198.51.100.1")
		defer c.close()
		conn, err := c.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, errno := range []error{syscall.EPERM, syscall.ENETUNREACH, syscall.ENOBUFS} {
			err := error(&net.OpError{Op: "write", Err: os.NewSyscallError("sendto", errno)})
			below.err.Store(&err)
			time.Sleep(6 * time.Second) // a keep-alive is not answered
			below.err.Store(nil)
			time.Sleep(6 * time.Second)
			wantLive(t, l.c, 1, 0)
		}
		if resp, err := get(t.Context(), conn); err != nil || resp.StatusCode != 200 {
			t.Errorf("request: %v", err)
		}
		if l.c.Stats().SendErrors == 0 {
			t.Error("packets that could not be sent are not counted")
		}
		if err := conn.CloseWithError(0, ""); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
