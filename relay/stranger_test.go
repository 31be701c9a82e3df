package relay

import (
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// TestStrangersEnd: a connection that shows nothing is over within 30 seconds, however
// its requests are; one that waits for the offers of its key, or has a leg, is not.
func TestStrangersEnd(t *testing.T) {
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
		time.Sleep(strangersPatience + time.Second)
		for name, p := range map[string]*peer{"idle": idle, "half a frame": half, "half of headers": headers} {
			if p.quic.Context().Err() == nil {
				l.Errorf("%s: the connection lives", name)
			}
		}
		for name, p := range map[string]*peer{"waiting": waiting, "member": member} {
			if p.quic.Context().Err() != nil {
				l.Errorf("%s: the connection is over", name)
			}
		}
		wantStatus(l, "waiting", <-got, http.StatusNoContent)
		synctest.Wait()
		if n := l.server.lobby.total; n != 0 {
			l.Errorf("%d strangers are left", n)
		}
	})
}

// TestHalfRequestsEnd: also those of whoever has shown something.
func TestHalfRequestsEnd(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
		for range maxRequests - 1 {
			stream, err := p.quic.OpenStream()
			if err != nil {
				l.Fatal(err)
			}
			stream.Write(append([]byte{0x01, 0x5f, 0x40}, make([]byte, 900)...))
		}
		time.Sleep(requestPatience + time.Second)
		wantStatus(l, "a whole request", p.refresh(), http.StatusOK)
	})
}

// TestLobbyIsBounded: by source, by site and in all, and nobody is kept out by those
// of another.
func TestLobbyIsBounded(t *testing.T) {
	var l lobby
	fill := func(addr func(i int) netip.Addr, n int) (gone int) {
		for i := range n {
			if l.enter(&client{}, addr(i)) != nil {
				gone++
			}
		}
		return gone
	}
	source := func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
	if gone := fill(source, maxStrangersSource+10); gone != 10 || l.total != maxStrangersSource {
		t.Errorf("of one source %d give way, %d are there", gone, l.total)
	}
	site := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(i >> 8), byte(i), 15: 1})
	}
	if gone := fill(site, maxStrangersSite+10); gone != 10 {
		t.Errorf("of one site %d give way", gone)
	}
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	fill(many, 2*maxStrangers)
	if l.total != maxStrangers {
		t.Errorf("%d in all, want %d", l.total, maxStrangers)
	}
	for _, all := range l.sites {
		for _, c := range all {
			l.leave(c)
			break
		}
	}
}
