package splice

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestRefusals checks the conditions of a takeover on real connections: the reason is counted, the options
// of the sockets are as before, and the connections go on in userspace.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		want   Reason
		before func(l *lab) // connections are made
	}{
		{"timestamps", RefusedTimestamps, func(l *lab) { l.server.Sysctl("net/ipv4/tcp_timestamps", "0") }},
		{"SACK", RefusedSACK, func(l *lab) { l.server.Sysctl("net/ipv4/tcp_sack", "0") }},
		{"MSS to the server", RefusedMSS, func(l *lab) { l.server.MTU("s0", 1400); l.relay.MTU("rb", 1400) }},
		{"MSS to the client", RefusedMSS, func(l *lab) { l.client.MTU("c0", 1400); l.relay.MTU("ra", 1400) }},
		{"upstream on this host", RefusedLoopback, func(l *lab) {
			l.served.Close()
			l.relay.Address("rb", "10.2.0.3/24")
			l.served = l.listen(l.relay, "10.2.0.3:4433")
		}},
		{"upstream on loopback", RefusedLoopback, func(l *lab) {
			l.served.Close()
			l.served = l.listen(l.relay, "127.0.0.1:4433")
		}},
		{"interface", RefusedInterface, func(l *lab) {
			if err := l.program.Detach(l.t.Context(), "rb"); err != nil {
				l.t.Fatal(err)
			}
		}},
		{"families", RefusedFamily, func(l *lab) {
			l.served.Close()
			l.served = l.listen(l.server, "[fd00:2::1]:4433")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, false, nil)
			c.before(l)
			chain, s := l.connect(), newStreams()
			chain.mustExchange(s, 1000)
			before := [2]settings{settingsOf(t, chain.down), settingsOf(t, chain.up)}
			wantRefusal(t, l, chain, c.want)
			if after := [2]settings{settingsOf(t, chain.down), settingsOf(t, chain.up)}; after != before {
				t.Errorf("options %+v, want %+v", after, before)
			}
			chain.mustExchange(s, 100<<10)
			l.empty()
		})
	}
}

// wantRefusal checks that Take refuses a chain, and counts why.
func wantRefusal(t *testing.T, l *lab, c *chain, want Reason) {
	t.Helper()
	_, err := l.program.Take(t.Context(), c.down, c.up, 0)
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != want {
		t.Errorf("%v, want %v", err, want)
	}
	if stats, err := l.program.Stats(); err != nil || stats[want] != 1 {
		t.Errorf("%v is counted %d times, %v", want, stats[want], err)
	}
}

// TestRefusedMeanwhile checks that takeovers end, with nothing changed, if the ends do not become quiet.
func TestRefusedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		want  Reason
		first func(c *chain)
	}{
		{"an end has finished", RefusedState, func(c *chain) {
			c.client.CloseWrite()
			wantEOF(c.l.t, c.server)
		}},
		{"the owner has closed a socket", RefusedSocket, func(c *chain) { c.up.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, false, nil)
			chain, s := l.connect(), newStreams()
			chain.mustExchange(s, 1000)
			c.first(chain)
			wantRefusal(t, l, chain, c.want)
			l.empty()
		})
	}
}

// TestRefusedBusy checks a takeover of connections between which nobody copies.
func TestRefusedBusy(t *testing.T) {
	t.Parallel()
	for name, finish := range map[string]bool{"nobody reads": false, "an end finishes": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, false, nil)
			c := l.connectFrom("")
			c.stall()
			if _, err := c.client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			want := RefusedBusy
			if finish {
				want = RefusedState
				go c.client.CloseWrite()
			}
			before := settingsOf(t, c.down)
			wantRefusal(t, l, c, want)
			if after := settingsOf(t, c.down); after != before {
				t.Errorf("options %+v, want %+v", after, before)
			}
			l.empty()
		})
	}
}

// TestCanceled checks that a takeover ends with its context, and a way back too.
func TestCanceled(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c := l.connect()
	c.stall()
	if _, err := c.client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var refusal *Refusal
	if _, err := l.program.Take(ctx, c.down, c.up, 0); !errors.As(err, &refusal) || refusal.Reason != RefusedCanceled || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, RefusedCanceled)
	}

	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	c.mustExchange(s, 1000)
	// What the server does not get is not acknowledged.
	l.server.Unplug("s0")
	if _, err := c.client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the packet", func() bool { client, _ := pair.Traffic(); return client.Bytes > 1000 })
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := pair.Return(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
	if _, _, err := pair.Return(t.Context()); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want %v", err, ErrTimeout)
	}
	if pair.End() != Running {
		t.Errorf("the pair has ended: %v", pair.End())
	}
	if err := pair.Abort(); err != nil {
		t.Error(err)
	}
	if _, _, err := pair.Return(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("%v, want %v", err, ErrEnded)
	}
	l.empty()
}

// stall ends the copying of a chain.
func (c *chain) stall() {
	past := time.Unix(1, 0)
	for _, s := range []*net.TCPConn{c.down, c.up} {
		s.SetDeadline(past)
	}
	c.copies.Wait()
	for _, s := range []*net.TCPConn{c.down, c.up} {
		s.SetDeadline(time.Time{})
	}
}

// TestFull checks that there are no more pairs than Config.MaxPairs, and that those that have ended make
// room.
func TestFull(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, &Config{MaxPairs: 1})
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	other, s := l.connect(), newStreams()
	other.mustExchange(s, 1000)
	wantRefusal(t, l, other, RefusedFull)
	other.mustExchange(s, 1000)
	c.client.CloseWrite()
	c.server.CloseWrite()
	wantEnd(t, pair, Finished)
	if err := other.take().Abort(); err != nil {
		t.Error(err)
	}
	l.empty()
}

// TestProtocol checks that MPTCP is refused.
func TestProtocol(t *testing.T) {
	t.Parallel()
	loopback(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		nettest.Missing(t, "no MPTCP: "+err.Error())
	}
	unix.Close(fd)
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	c, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if refusal := checkProtocol(c.(*net.TCPConn)); refusal == nil || refusal.Reason != RefusedProtocol {
		t.Errorf("%v, want %v", refusal, RefusedProtocol)
	}
}

// TestDetach checks that the pairs of an interface come back before it is detached, and that Close takes
// all others back.
func TestDetach(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Detach", "Close"} {
		t.Run(how, func(t *testing.T) {
			l := newLab(t, false, nil)
			c, s := l.connect(), newStreams()
			c.mustExchange(s, 1000)
			pair := c.take()
			c.mustExchange(s, 1000)
			var owner sync.WaitGroup
			owner.Go(func() {
				<-pair.Done()
				c.takeBack(pair)
			})
			var err error
			if how == "Detach" {
				l.relay.Do(func() error { return l.program.Detach(t.Context(), "rb") })
			} else {
				err = l.program.Close(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			owner.Wait()
			if pair.End() != CameBack {
				t.Errorf("%v, want %v", pair.End(), CameBack)
			}
			c.mustExchange(s, 1<<20)
			if how == "Detach" {
				wantRefusal(t, l, c, RefusedInterface)
				l.empty()
			} else if _, err := l.program.Take(t.Context(), c.down, c.up, 0); !errors.Is(err, ErrClosed) {
				t.Errorf("%v, want %v", err, ErrClosed)
			}
		})
	}
}

// TestCloseInTime checks that Close resets the pairs that have not come back when its context ends.
func TestCloseInTime(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	c.client.CloseWrite() // no way back any more
	wantEOF(t, c.server)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.program.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
	wantEnd(t, pair, Reset)
	wantReset(t, c.client)
}

// TestInterfaceWants checks that the owner of a pair learns that an interface was deleted.
func TestInterfaceWants(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	c.mustExchange(s, 1000)
	l.relay.Do(func() error { return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "rb"}}) })
	select {
	case why := <-pair.Wants():
		if why != WantedInterface {
			t.Errorf("%v, want %v", why, WantedInterface)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the owner was not told")
	}
	if err := pair.Abort(); err != nil {
		t.Error(err)
	}
	wantReset(t, c.client)
	l.empty()
}

// TestEventLost checks that the end of a pair is found without an event.
func TestEventLost(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	if err := l.program.events.Close(); err != nil {
		t.Fatal(err)
	}
	c.client.SetLinger(0)
	c.client.Close()
	wantEnd(t, pair, Reset)
	l.empty()
}

// TestWants checks that the owner of a pair learns what the programs have noted, once, also without an
// event.
func TestWants(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	for _, w := range []struct {
		bit  uint32
		want Reason
	}{{seenICMP, WantedTooBig}, {seenOptions, WantedOptions}, {seenTTL, WantedTTL}} {
		atomic.OrUint32(&pair.entry.Halves[fromUpstream].Seen, w.bit)
		select {
		case why := <-pair.Wants():
			if why != w.want {
				t.Errorf("bit %x: %v, want %v", w.bit, why, w.want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("bit %x: the owner was not told", w.bit)
		}
	}
	l.program.keeper.do(func() { l.program.keeper.look(pair) })
	select {
	case why := <-pair.Wants():
		t.Errorf("told again: %v", why)
	default:
	}
	if stats, err := l.program.Stats(); err != nil || stats[WantedTooBig] != 1 || stats[Taken] != 1 {
		t.Errorf("counted %v, %v", stats, err)
	}
	c.takeBack(pair)
	c.mustExchange(s, 1000)
}
