package relay

import (
	"net/http"
	"testing"
	"time"
)

// TestLegKeepsNoConnection checks that a leg outlives its control connection, but does not
// keep the memory of the connection.
func TestLegKeepsNoConnection(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		alice.transport.Close()
		time.Sleep(time.Minute) // until QUIC closes the connection
		wantStatus(l, "refresh", bob.refresh(), http.StatusOK)
		time.Sleep(45 * time.Second)
		ses := l.server.sessions.find(alice.session)
		if ses == nil || !ses.legs[0].present || ses.legs[0].client.conn != nil {
			l.Fatalf("got %+v, want a leg without a connection", ses)
		}
		alice.reconnect()
		wantStatus(l, "refresh", alice.refresh(), http.StatusOK)
		packet := alice.packet(0, "back again")
		bob.send(packet)
		alice.want(packet)
	})
}
