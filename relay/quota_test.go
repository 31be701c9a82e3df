package relay

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

func newQuota(t *testing.T, conf *quota.Config) *quota.Controller {
	t.Helper()
	// That of the test, outside of the bubble, would go back in it.
	conf.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	c, err := quota.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSessionQuota checks that a source can have as many sessions as its quota allows, that
// joins and refreshes do not count, and that ended sessions do not count any more.
func TestSessionQuota(t *testing.T) {
	sessions := newQuota(t, &quota.Config{Source: quota.Limits{Connections: 2}})
	runLab(t, &Config{SessionQuota: sessions}, func(l *lab) {
		p, other := l.peer(), l.peer()
		open := func(p *peer) (control.SessionID, int) {
			id := control.NewSessionID()
			status, _ := p.register(id, control.Register{Key: p.key}, l.server.Token())
			return id, status
		}
		first, status := open(p)
		wantStatus(l, "first", status, http.StatusOK)
		_, status = open(p)
		wantStatus(l, "second", status, http.StatusOK)
		_, status = open(p)
		wantStatus(l, "third", status, http.StatusTooManyRequests)
		_, status = open(other)
		wantStatus(l, "somebody else's", status, http.StatusOK)
		status, _ = p.register(first, control.Register{Key: p.key}, l.server.Token())
		wantStatus(l, "refresh", status, http.StatusOK)

		p.session = first
		wantStatus(l, "end", p.end(p.key), http.StatusNoContent)
		time.Sleep(linger + 2*sweepPeriod)
		_, status = open(p)
		wantStatus(l, "in its place", status, http.StatusOK)
		if s := sessions.Stats(); s.Connections != 3 || s.Refused[quota.Connections] != 1 {
			l.Errorf("counted %+v, want 3 sessions and 1 refused", s)
		}
	})
	if s := sessions.Stats(); s.Connections != 0 {
		t.Errorf("%d sessions are left of a relay that is closed", s.Connections)
	}
}

// TestQuota checks the quota on control connections and on requests.
func TestQuota(t *testing.T) {
	connections := newQuota(t, &quota.Config{
		Source:    quota.Limits{Connections: 1, RequestRate: 0.01, RequestBurst: 3},
		Overrides: []quota.Override{{Prefix: netip.MustParsePrefix("198.51.100.2/32"), Exempt: true}},
	})
	runLab(t, &Config{Quota: connections}, func(l *lab) {
		p := l.peer()
		for i := range 5 {
			want := http.StatusOK
			if i >= 3 {
				want = http.StatusTooManyRequests
			}
			status, _ := p.register(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
			wantStatus(l, "registration", status, want)
		}
		conn := l.net.Listen("198.51.100.1:2000")
		defer conn.Close()
		transport := &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
		defer transport.Close()
		_, err := transport.Dial(context.Background(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relayAddr)),
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, nil)
		if err == nil {
			l.Error("a second connection from a source with a limit of one")
		}
		l.peer()                // from an exempt source
		time.Sleep(time.Second) // the relay has completed the handshake, too
		if s := connections.Stats(); s.Connections != 2 {
			l.Errorf("%d connections, want 2", s.Connections)
		}
	})
	if s := connections.Stats(); s.Connections != 0 || s.HalfOpen != 0 {
		t.Errorf("%d connections are left of a relay that is closed", s.Connections)
	}
}
