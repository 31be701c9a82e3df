package quota

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestHalfOpenBecomesConnection checks that a half-open slot becomes that of a connection
// by Established, or after HandshakeTimeout.
func TestHalfOpenBecomesConnection(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 2}})
		a, b := mustAdmit(t, c, "192.0.2.1:1"), mustAdmit(t, c, "192.0.2.1:2")
		wantLive(t, c, 0, 2)
		for range 2 {
			if !a.Established() {
				t.Error("no room for the one that was admitted")
			}
		}
		wantLive(t, c, 1, 1)
		time.Sleep(defaultHandshake + time.Millisecond)
		wantLive(t, c, 2, 0)
		a.Release()
		b.Release()
		wantLive(t, c, 0, 0)
	})
}

// TestEstablishWithoutRoom checks that a half-open attempt is not established if others,
// whose addresses are validated, have taken all room.
func TestEstablishWithoutRoom(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		ended := make(chan struct{}, 2)
		a := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
		a.OnEnd(func() { ended <- struct{}{} })
		wantAdmit(t, c, "192.0.2.1:3", true, PassNew)
		if a.Established() {
			t.Error("established beyond the quota")
		}
		wantLive(t, c, 1, 1)
		a.OnEnd(func() { ended <- struct{}{} }) // too late: at once
		<-ended
		a.Release()
		wantLive(t, c, 1, 0)
	})
}

// TestTimeoutWithoutRoom checks the same when HandshakeTimeout has passed.
func TestTimeoutWithoutRoom(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{Source: Limits{Connections: 1}})
		ended := make(chan struct{}, 2)
		a := mustAdmit(t, c, "192.0.2.1:1")
		a.OnEnd(func() { ended <- struct{}{} })
		wantAdmit(t, c, "192.0.2.1:3", true, PassNew)
		<-ended
		a.Release()
		wantLive(t, c, 1, 0)
	})
}

// TestAllowedIsNotHeldToLimits checks that an allowed address has no limits, not even when
// its handshake is complete.
func TestAllowedIsNotHeldToLimits(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{AlwaysRetry: true, Source: Limits{Connections: 1}, Total: Limits{Connections: 1}})
		if err := c.Allow(netip.MustParsePrefix("192.0.2.1/32"), 0, ""); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if c.WantsRetry(addr("192.0.2.1:1")) {
				t.Error("got a Retry")
			}
			slot := wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), false, PassNew)
			if !slot.Established() {
				t.Error("no room when the handshake was complete")
			}
			defer slot.Release()
		}
	})
}

// TestEndAfterRelease checks that End finds the remaining slots after others were released.
func TestEndAfterRelease(t *testing.T) {
	c := mustNew(t, nil)
	var slots []*Slot
	for i := range 5 {
		slots = append(slots, wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), true, PassNew))
	}
	for _, i := range []int{2, 0, 4} {
		slots[i].Release()
	}
	if n := c.End(netip.MustParsePrefix("192.0.2.1/32")); n != 2 {
		t.Errorf("ended %d, want 2", n)
	}
}

// TestMigrationKeepsSlot checks that a connection that migrates keeps its slot, and counts
// for the address that it was admitted from.
func TestMigrationKeepsSlot(t *testing.T) {
	runLab(t, &Config{Source: Limits{Connections: 1}}, func(l *lab) {
		c := l.client("198.51.100.1")
		defer c.close()
		conn, err := c.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		h3 := (&http3.Transport{}).NewClientConn(conn)
		l.net.Rebind(c.conn, "198.51.100.2:4000")
		for range 10 {
			if _, err := getOn(context.Background(), h3); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		wantLive(t, l.c, 1, 0)
		wantAdmit(t, l.c, "198.51.100.1:1", true, Connections)
		wantAdmit(t, l.c, "198.51.100.2:1", true, PassNew).Release()
		c.close()
		time.Sleep(time.Minute) // its idle timeout
		wantLive(t, l.c, 0, 0)
	})
}

// TestSlotsComeBack checks that slots are released after success, failure, a refused
// certificate, silence, and any mix of these.
func TestSlotsComeBack(t *testing.T) {
	runLab(t, &Config{Source: Limits{Connections: 50, HalfOpen: 20}}, func(l *lab) {
		var wg sync.WaitGroup
		var clients []*client
		for i := range 30 {
			c := l.client("198.51.100.7")
			clients = append(clients, c)
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				switch i % 5 {
				case 0: // gives up during the handshake
					short, cancel := context.WithTimeout(ctx, 12*time.Millisecond)
					defer cancel()
					c.dial(short)
				case 1: // does not trust the server
					c.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr(serverAddr)), &distrusting, nil)
				case 2: // stops sending
					c.dial(ctx)
					c.conn.Close()
				case 3:
					if conn, err := c.dial(ctx); err == nil {
						conn.CloseWithError(0, "")
					}
				case 4:
					if conn, err := c.dial(ctx); err == nil {
						get(ctx, conn)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if s := l.c.Stats(); s.Admitted < 20 {
			t.Errorf("%d were admitted, want most of them", s.Admitted)
		}
		closeAll(clients)
		time.Sleep(time.Minute)
		wantLive(t, l.c, 0, 0)
	})
}

// TestEndedIsNotEstablished checks that an attempt that was ended in its handshake does not
// become a connection, though there is room.
func TestEndedIsNotEstablished(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, nil)
		slot := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
		var ended atomic.Int32
		slot.OnEnd(func() { ended.Add(1) })
		if n := c.End(netip.MustParsePrefix("192.0.2.0/24")); n != 1 {
			t.Errorf("ended %d, want 1", n)
		}
		if slot.Established() {
			t.Error("established, though it was ended")
		}
		time.Sleep(time.Minute)
		if n := ended.Load(); n != 1 {
			t.Errorf("OnEnd was called %d times, want once", n)
		}
		slot.Release()
		if slot.Established() {
			t.Error("established, though it was released")
		}
		wantLive(t, c, 0, 0)
	})
}

// TestEstablishBeyondTotal checks that a half-open attempt is not established if all sources
// together have used up the total.
func TestEstablishBeyondTotal(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, RetryHalfOpen: -1, Total: Limits{Connections: 2}})
	a := wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
	defer a.Release()
	for _, from := range []string{"192.0.2.2:1", "192.0.2.3:1"} {
		defer wantAdmit(t, c, from, true, PassNew).Release()
	}
	if a.Established() {
		t.Error("established beyond the total")
	}
	wantLive(t, c, 2, 1)
}
