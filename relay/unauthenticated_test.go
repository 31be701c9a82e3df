package relay

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quicway/quicway/internal/control"
)

// TestUnauthenticatedConnectionsEnd checks that a connection that is not authenticated ends
// after 30 seconds, even if it keeps sending parts of requests, unless it waits for offers
// to its key or has a leg.
func TestUnauthenticatedConnectionsEnd(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		idle, half, headers, waiting, member := l.peer(), l.peer(), l.peer(), l.peer(), l.peer()
		stream, err := half.quic.OpenStream()
		if err != nil {
			l.Fatal(err)
		}
		stream.Write([]byte{0x01, 0x40})
		for range maxRequests {
			stream, err := headers.quic.OpenStream()
			if err != nil {
				l.Fatal(err)
			}
			stream.Write(append([]byte{0x01, 0x5f, 0x40}, make([]byte, 900)...))
		}
		got := make(chan int, 1)
		go func() {
			status, _ := waiting.take(waiting.name(), "", control.MaxWait)
			got <- status
		}()
		member.mustRegister(control.NewSessionID(), control.Register{Key: member.key}, l.server.Token())
		time.Sleep(unauthenticatedTimeout + time.Second)
		for name, p := range map[string]*peer{"idle": idle, "half a frame": half, "half of headers": headers} {
			if p.quic.Context().Err() == nil {
				l.Errorf("%s: the connection is alive", name)
			}
		}
		for name, p := range map[string]*peer{"waiting": waiting, "member": member} {
			if p.quic.Context().Err() != nil {
				l.Errorf("%s: the connection is over", name)
			}
		}
		wantStatus(l, "waiting", <-got, http.StatusNoContent)
		synctest.Wait()
		if n := l.server.control.lobbies.unauthenticated.total; n != 1 { // the one that has stopped waiting
			l.Errorf("%d unauthenticated connections are left", n)
		}
	})
}

// TestListenersAreBounded checks that the oldest connection that waits for offers without a
// token is closed when there are too many, and that those with a token are not.
func TestListenersAreBounded(t *testing.T) {
	runLab(t, &Config{MaxListeners: 1}, func(l *lab) {
		wait := func(token string) *peer {
			p := l.peer()
			go func() { // the relay may close the connection
				path := fmt.Sprintf(control.OffersPath+"?wait=60", p.name())
				req, _ := http.NewRequest(http.MethodGet, "https://relay"+path, nil)
				req.Header.Set("Authorization", control.Bearer+token)
				if resp, err := p.http.RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			}()
			synctest.Wait()
			return p
		}
		member, first := wait(l.server.Token()), wait("")
		second := wait("wrong")
		time.Sleep(time.Second)
		for name, c := range map[string]struct {
			*peer
			lives bool
		}{"member": {member, true}, "first": {first, false}, "second": {second, true}} {
			if lives := c.quic.Context().Err() == nil; lives != c.lives {
				l.Errorf("%s: lives: %v", name, lives)
			}
		}
	})
}

// TestHalfRequestsEnd checks that incomplete requests end, also those of authenticated
// clients.
func TestHalfRequestsEnd(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
		var streams []*quic.Stream
		for range maxRequests {
			stream, err := p.quic.OpenStreamSync(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			stream.Write(append([]byte{0x01, 0x5f, 0x40}, make([]byte, 900)...))
			streams = append(streams, stream)
		}
		time.Sleep(requestTimeout + time.Second)
		for _, stream := range streams {
			stream.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := stream.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				l.Fatal("an incomplete request is still open")
			}
		}
		wantStatus(l, "a whole request", p.refresh(), http.StatusOK)
	})
}

// TestLobbyIsBounded checks the bounds for a source, for a site and in all, and that one
// site cannot keep the others out.
func TestLobbyIsBounded(t *testing.T) {
	l := newLobby(maxUnauthenticated)
	fill := func(addr func(i int) netip.Addr, n int) (gone int) {
		for i := range n {
			c := &client{}
			switch l.enter(c, addr(i)) {
			case nil:
			case c:
				t.Fatal("a new connection did not get in")
			default:
				gone++
			}
		}
		return gone
	}
	source := func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
	if gone := fill(source, l.maxSource+10); gone != 10 || l.total != l.maxSource {
		t.Errorf("%d connections of one source were evicted, %d are left", gone, l.total)
	}
	site := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(i >> 8), byte(i), 15: 1})
	}
	if gone := fill(site, l.maxSite+10); gone != 10 {
		t.Errorf("%d connections of one site were evicted", gone)
	}
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	fill(many, 2*maxUnauthenticated)
	if l.total != maxUnauthenticated {
		t.Errorf("%d in all, want %d", l.total, maxUnauthenticated)
	}
	one := newLobby(4)
	first := &client{}
	one.enter(first, many(0))
	for i := range 3 {
		one.enter(&client{}, many(i+1))
	}
	if gone := one.enter(&client{}, many(4)); gone != first {
		t.Error("another connection than the oldest was evicted")
	}
	for _, all := range l.sites {
		for _, c := range all {
			l.leave(c)
			break
		}
	}
}
