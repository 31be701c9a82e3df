package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/tcptest"
)

// busy is what the ends of a connection send each other in tests in which something happens
// meanwhile.
var busy = tcptest.Exchange{Up: 512 << 10, Down: 512 << 10, Pause: 8 * time.Millisecond}

func busyExchange(int) tcptest.Exchange { return busy }

// TestShrinkingPath lowers the MTU of the path to the server while the ends send. The ICMP messages reach
// the program, and the connections come back and go on with smaller segments.
func TestShrinkingPath(t *testing.T) {
	t.Parallel()
	const connections = 6
	families(t, func(t *testing.T, v6 bool) {
		r := newLineLab(t, v6, nil)
		r.set(nettest.LineConditions{Delay: time.Millisecond})
		var taken atomic.Int32
		r.each = func(c *tcptest.Conn) {
			pair := r.mustTake(c, 0)
			if taken.Add(1) == connections {
				r.far.Set(nettest.LineConditions{Delay: time.Millisecond, MTU: 1400})
			}
			if pair != nil {
				r.untilHome(c, pair)
			}
		}
		r.start()
		r.exchange(connections, busyExchange)
		r.leftovers()
		if r.outcome.of(WantedTooBig.String()) == 0 || r.outcome.of(wasReturned) == 0 {
			t.Errorf("got %v, want that connections whose packets were too big have come back", &r.outcome)
		}
		if up, _ := r.far.Counts(); up.TooBig == 0 {
			t.Error("no packet was too big")
		}
	})
}

// TestShrinkingTwice lowers the MTU of the path twice, and the owner of the pair does nothing. The sender learns
// of both, and the pair ends in the kernel.
func TestShrinkingTwice(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		r := newLineLab(t, v6, nil)
		r.set(nettest.LineConditions{Delay: time.Millisecond})
		r.each = func(c *tcptest.Conn) {
			pair := r.mustTake(c, 0)
			if pair == nil {
				return
			}
			r.far.Set(nettest.LineConditions{Delay: time.Millisecond, MTU: 1400})
			select {
			case <-pair.Wants():
				r.far.Set(nettest.LineConditions{Delay: time.Millisecond, MTU: 1300})
			case <-pair.Done():
			}
			<-pair.Done()
			if pair.End() != Finished {
				t.Errorf("%v, want %v", pair.End(), Finished)
			}
		}
		r.start()
		r.exchange(1, func(int) tcptest.Exchange {
			x := busy
			x.Up = 2 << 20
			return x
		})
		r.leftovers()
		if up, _ := r.far.Counts(); up.TooBig < 2 {
			t.Errorf("%d packets were too big, want some at each MTU", up.TooBig)
		}
	})
}

// untilHome returns a pair to userspace when the kernel wants it to, and waits until the pair has ended
// or is back.
func (r *lineLab) untilHome(c *tcptest.Conn, pair *Pair) {
	for {
		select {
		case why := <-pair.Wants():
			r.outcome.add(why.String())
			if r.back(c, pair) {
				return
			}
		case <-pair.Done():
			if pair.End() == CameBack {
				r.back(c, pair)
			}
			return
		}
	}
}

// TestBusyDetach detaches the program from an interface, or closes it, while the ends send. No
// connection ends.
func TestBusyDetach(t *testing.T) {
	t.Parallel()
	const connections = 6
	for name, leave := range map[string]func(context.Context, *Program) error{
		"Detach": func(ctx context.Context, p *Program) error { return p.Detach(ctx, "rb") },
		"Close":  func(ctx context.Context, p *Program) error { return p.Close(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newLineLab(t, false, nil)
			r.set(nettest.LineConditions{Delay: time.Millisecond, Loss: 0.002})
			var taken atomic.Int32
			left := make(chan error, 1)
			r.each = func(c *tcptest.Conn) {
				pair := r.mustTake(c, 0)
				if taken.Add(1) == connections {
					go func() { left <- r.relay.Run(func() error { return leave(context.Background(), r.program) }) }()
				}
				if pair != nil {
					r.untilHome(c, pair)
				}
			}
			r.start()
			r.exchange(connections, busyExchange)
			if err := <-left; err != nil {
				t.Error(err)
			}
			r.leftovers()
			if r.outcome.of(wasReturned) == 0 {
				t.Errorf("no connection has come back: %v", &r.outcome)
			}
		})
	}
}

// TestInterfaceRemoved removes the interface to the server while the ends send. Each owner learns of it,
// and the clients get a reset.
func TestInterfaceRemoved(t *testing.T) {
	t.Parallel()
	const connections = 6
	r := newLineLab(t, false, nil)
	r.set(nettest.LineConditions{Delay: time.Millisecond})
	var taken atomic.Int32
	all := make(chan struct{}) // closed when the kernel has all connections
	r.each = func(c *tcptest.Conn) {
		pair := r.mustTake(c, 0)
		if taken.Add(1) == connections {
			close(all)
			r.relay.Do(func() error {
				return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "rb"}})
			})
		}
		if pair == nil {
			return
		}
		select {
		case why := <-pair.Wants():
			r.outcome.add(why.String())
		case <-time.After(20 * time.Second):
			t.Error("an owner was not told")
		}
		if err := pair.Abort(); err != nil {
			t.Error(err)
		}
	}
	r.start()
	x := busy
	x.Timeout, x.Half = 6*time.Second, all
	errs := make(chan error, connections)
	for i := range connections {
		x := x
		x.Seed = uint64(i)
		go func() { errs <- r.ends.Run(x, r.dial(r.client, labNear)) }()
	}
	for range connections {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "connection reset by peer") {
			t.Errorf("got %v, want a reset of the client", err)
		}
	}
	if n := r.outcome.of(WantedInterface.String()); n != connections {
		t.Errorf("%v, want that all %d owners are told", &r.outcome, connections)
	}
	r.server = nil // it goes on trying to end its connections
	r.leftovers()
}

// TestMarkedPath marks packets on both sides of the relay. If only one side has ECN, marks count as losses;
// otherwise they reach the other end.
func TestMarkedPath(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{false, true} {
		families(t, func(t *testing.T, v6 bool) {
			t.Run(map[bool]string{false: "one side", true: "both sides"}[both], func(t *testing.T) {
				r := newLineLab(t, v6, nil)
				r.client.Sysctl("net/ipv4/tcp_ecn", "1")
				if both {
					r.relay.Sysctl("net/ipv4/tcp_ecn", "1")
				}
				r.set(nettest.LineConditions{Delay: time.Millisecond})
				taken := make(chan struct{})
				r.each = func(c *tcptest.Conn) {
					pair := r.mustTake(c, 0)
					r.set(nettest.LineConditions{Delay: time.Millisecond, CE: 0.2})
					close(taken)
					if pair != nil {
						<-pair.Done()
					}
				}
				r.start()
				counters := r.server.Counters()
				half := busy
				half.Half = taken
				r.exchange(1, func(int) tcptest.Exchange { return half })
				changed := r.server.Counters().Since(counters)
				marks := changed["IpExtInCEPkts"] + changed["Ip6InCEPkts"]
				stats, err := r.program.Stats()
				if err != nil {
					t.Fatal(err)
				}
				if (marks > 0) != both || (stats[DroppedCE] > 0) == both {
					t.Errorf("%d marks have reached the server, and %d were dropped", marks, stats[DroppedCE])
				}
				r.leftovers()
			})
		})
	}
}

// TestScales takes over connections whose sides have different scales of the window, while an end reads
// slowly. No end may send more than the other one has room for.
func TestScales(t *testing.T) {
	const small, large = "4096 65536 262144", "4096 131072 33554432"
	for name, sizes := range map[string][2]string{"relay's smaller": {small, large}, "relay's larger": {large, small}} {
		t.Run(name, func(t *testing.T) {
			r := newLineLab(t, false, nil)
			r.relay.Sysctl("net/ipv4/tcp_rmem", sizes[0])
			r.client.Sysctl("net/ipv4/tcp_rmem", sizes[1])
			r.server.Sysctl("net/ipv4/tcp_rmem", sizes[1])
			r.set(nettest.LineConditions{Delay: time.Millisecond})
			r.each = func(c *tcptest.Conn) { r.churn(c, 3, 100*time.Millisecond) }
			r.start()
			counters := r.counters()
			r.exchange(4, func(i int) tcptest.Exchange {
				x := busy
				x.Slow = 10 * time.Millisecond
				return x
			})
			r.faultless(counters)
			r.leftovers()
			if r.outcome.of(wasTaken) == 0 {
				t.Errorf("got %v, want takeovers", &r.outcome)
			}
		})
	}
}

// TestSlowReader checks that a client cannot send more than fits into the buffers of the ends if the server
// does not read, and that all of it arrives later.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const most = 2 << 20 // what both ends may keep
	r := newLineLab(t, false, nil)
	r.server.Sysctl("net/ipv4/tcp_rmem", "4096 131072 1048576")
	r.client.Sysctl("net/ipv4/tcp_wmem", "4096 16384 1048576")
	listener := r.listen(r.server, labServer)
	defer listener.Close()
	taken := make(chan *Pair, 1)
	r.each = func(c *tcptest.Conn) {
		pair := r.mustTake(c, 0)
		taken <- pair
		if pair != nil {
			<-pair.Done()
		}
	}
	r.startRelay()
	client, err := r.dial(r.client, labNear)()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if <-taken == nil {
		t.FailNow()
	}
	sent := writeUntilFull(t, client, 10*most)
	if sent > most {
		t.Errorf("the client could send %d bytes to a server that does not read, want at most %d", sent, most)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := server.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.Copy(io.Discard, server); got != sent || err != nil {
		t.Errorf("%d of %d bytes arrive, %v", got, sent, err)
	}
	for _, c := range []io.Closer{client, server, listener} {
		c.Close()
	}
	r.leftovers()
}

// writeUntilFull writes until the connection takes no more for a while, or has taken a number of bytes.
func writeUntilFull(t *testing.T, c *net.TCPConn, most int64) (n int64) {
	t.Helper()
	for b := make([]byte, 64<<10); n < most; {
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		k, err := c.Write(b)
		n += int64(k)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// isResetText says whether an error of an exchange says that both ends were reset.
func isResetText(err error) bool {
	return err != nil && strings.Count(err.Error(), "connection reset by peer") >= 2
}

// TestBusyKill kills the relay while the ends of several connections send. Without a pinned program all are
// reset. With one they go on, also while the next process adopts them, and leave nothing when they have
// ended.
func TestBusyKill(t *testing.T) {
	t.Parallel()
	const connections = 6
	for name, pinned := range map[string]bool{"not pinned": false, "pinned": true} {
		t.Run(name, func(t *testing.T) {
			r := newLines(t, false)
			r.set(nettest.LineConditions{Delay: time.Millisecond, Loss: 0.002})
			dir := ""
			if pinned {
				dir = nettest.BPFFS(t) + "/splice"
			}
			r.serve()
			process := r.lab().start(dir)
			errs, killed := make(chan error, connections), make(chan struct{})
			for i := range connections {
				x := busy
				x.Seed, x.Up, x.Down, x.Half = uint64(i), 2<<20, 2<<20, killed
				go func() { errs <- r.ends.Run(x, r.dial(r.client, labNear)) }()
				process.wait("taken")
			}
			process.kill()
			close(killed)
			if pinned {
				r.load(&Config{Pin: dir})
			}
			for range connections {
				switch err := <-errs; {
				case pinned && err != nil:
					t.Error(err)
				case !pinned && !isResetText(err):
					t.Errorf("got %v, want a reset", err)
				}
			}
			if !pinned {
				return
			}
			nettest.Eventually(t, "the pairs to end", func() bool {
				for range r.program.Pairs() {
					return false
				}
				return true
			})
			r.stop = func() {}
			r.leftovers()
			if err := Unpin(dir); err != nil {
				t.Error(err)
			}
		})
	}
}
