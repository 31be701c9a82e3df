package relay

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
)

// TestClockThatIsSet checks that setting the wall clock neither expires a leg from which a packet
// has come, nor keeps one alive, and that a server which drains waits as long as before.
func TestClockThatIsSet(t *testing.T) {
	server, err := Listen(context.Background(), "udp", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go server.Run(context.Background())
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	conn, err := quic.DialAddr(context.Background(), server.Addr().String(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		ses := newSession(server.sessions, 0, control.NewSessionID(), server.secrets.tokens.account(""), nil)
		l := &ses.legs[control.Dialer]
		l.present, l.client, l.ttl = true, &client{conn: conn}, time.Minute
		l.lastRefreshed = time.Now().Add(-time.Minute)
		l.heardAt(time.Now())
		after := func(d time.Duration) time.Time { return nettest.SetClock(time.Now().Add(d), by) }
		if after(time.Second).After(l.expiresLocked()) {
			t.Errorf("clock set by %v: the leg has expired a second after a packet", by)
		}
		if !after(2 * time.Minute).After(l.expiresLocked()) {
			t.Errorf("clock set by %v: the leg has not expired after two TTLs", by)
		}
		if quiet := 2 * drainQuiet; !ses.inUse(after(-time.Hour), after(0)) || ses.inUse(after(-time.Hour), after(quiet)) {
			t.Errorf("clock set by %v: the session is not in use, or still is after %v without a packet", by, quiet)
		}
		if d := time.Since(l.infoLocked().Heard); d < 0 || d > time.Minute {
			t.Errorf("clock set by %v: heard %v ago", by, d)
		}
	}
}
