package quota

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
)

// supply is a conn with a number of packets, from two addresses in turn.
type supply struct {
	net.PacketConn
	left atomic.Int64
}

func (s *supply) ReadFrom(b []byte) (int, net.Addr, error) {
	n := s.left.Add(-1)
	if n < 0 {
		return 0, nil, net.ErrClosed
	}
	return copy(b, "not QUIC"), net.UDPAddrFromAddrPort(nth(uint32(n % 2))), nil
}

// TestParallelReads checks that several goroutines may read from the conn.
func TestParallelReads(t *testing.T) {
	c := mustNew(t, nil)
	if err := c.Deny(c.Source(nth(1).Addr()), 0, ""); err != nil {
		t.Fatal(err)
	}
	below := &supply{PacketConn: loopback(t)}
	below.left.Store(1000)
	conn := c.PacketConn(below, 4)
	var wg sync.WaitGroup
	var got atomic.Int64
	for range 4 {
		wg.Go(func() {
			b := make([]byte, 100)
			for {
				if _, _, err := conn.ReadFrom(b); err != nil {
					return
				}
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); got.Load() != 500 || s.Passed[PassOther] != 500 || s.Dropped[Denied] != 500 {
		t.Errorf("read %d, %+v, want 500 passed and 500 dropped", got.Load(), s)
	}
}

func loopback(tb testing.TB) *net.UDPConn {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// TestConnKeepsMethods checks that the conn has those methods of the conn below by which
// quic-go detects its features.
func TestConnKeepsMethods(t *testing.T) {
	udp := loopback(t)
	for _, tc := range []struct {
		name            string
		conn            net.PacketConn
		raw, oob, batch bool
	}{
		{"socket", udp, true, true, true},
		{"plain", struct{ net.PacketConn }{udp}, false, false, false},
		{"plain, of a socket", struct {
			net.PacketConn
			syscall.Conn
		}{udp, udp}, true, false, false},
		// quic-go would not work with this conn alone.
		{"out-of-band data without batches", struct{ quic.OOBCapablePacketConn }{udp}, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := mustNew(t, nil).PacketConn(tc.conn, 4)
			_, raw := conn.(syscall.Conn)
			_, oob := conn.(quic.OOBCapablePacketConn)
			_, batch := conn.(batchReader)
			if raw != tc.raw || oob != tc.oob || batch != tc.batch {
				t.Errorf("lends its socket: %v, has out-of-band data: %v, batches: %v", raw, oob, batch)
			}
		})
	}
}
