package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestTakeIdle checks that connections on which nothing moves are taken over, and come back, again
// and again.
func TestTakeIdle(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		c, s := l.connect(), newStreams()
		c.mustExchange(s, 1000)
		for range 3 {
			pair := c.take()
			c.mustExchange(s, 1000)
			c.mustExchange(s, 1<<20)
			client, upstream := pair.Traffic()
			for _, h := range []Half{client, upstream} {
				if h.Bytes < 1000+1<<20 || h.Packets == 0 || time.Since(h.Last) > time.Minute {
					t.Errorf("traffic %+v, want at least %d bytes", h, 1000+1<<20)
				}
			}
			c.takeBack(pair)
			if end := pair.End(); end != CameBack {
				t.Errorf("the pair has ended: %v, want %v", end, CameBack)
			}
			c.mustExchange(s, 1<<20)
		}
		l.clean()
		l.empty()
	})
}

// TestInjected checks a takeover after bytes that the client has not sent.
func TestInjected(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	header := "PROXY TCP4\r\n"
	if _, err := c.up.Write([]byte(header)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c.server, make([]byte, len(header))); err != nil {
		t.Fatal(err)
	}
	c.mustExchange(s, 1000)
	pair, err := l.program.Take(t.Context(), c.down, c.up, uint64(len(header)))
	if err != nil {
		t.Fatal(err)
	}
	c.mustExchange(s, 1<<20)
	c.takeBack(pair)
	if pair, err = l.program.Take(t.Context(), c.down, c.up, uint64(len(header))); err != nil {
		t.Fatal(err)
	}
	c.mustExchange(s, 1<<20)
	if err := pair.Abort(); err != nil {
		t.Fatal(err)
	}
	l.empty()
}

// TestTakeBusy checks that connections on which much moves in both directions are taken over, and
// come back, without a byte lost.
func TestTakeBusy(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		c, s := l.connect(), newStreams()
		moved, stop := make(chan error, 1), make(chan struct{})
		go func() { moved <- c.exchangeUntil(s, stop) }()
		for range 5 {
			pair, err := l.takePatiently(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			nettest.Eventually(t, "packets", func() bool {
				client, upstream := pair.Traffic()
				return client.Bytes > 1<<20 && upstream.Bytes > 1<<20
			})
			c.takeBack(pair)
		}
		close(stop)
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		l.empty()
	})
}

// TestHalfClose checks that the ends can finish in any order, and that the pair ends then.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		for _, order := range []string{"client first", "server first", "both at once"} {
			t.Run(order, func(t *testing.T) {
				c, s := l.connect(), newStreams()
				c.mustExchange(s, 1000)
				pair := c.take()
				first, second, sent, got := c.client, c.server, s.sentDown, s.gotDown
				if order == "server first" {
					first, second, sent, got = c.server, c.client, s.sentUp, s.gotUp
				}
				first.CloseWrite()
				if order != "both at once" {
					wantEOF(t, second)
					if _, _, err := pair.Return(t.Context()); !errors.Is(err, ErrEnding) {
						t.Errorf("way back after an end has finished: %v, want %v", err, ErrEnding)
					}
					if err := errors.Join(send(second, sent, 100<<10), expect(first, got, 100<<10)); err != nil {
						t.Error(err)
					}
				}
				second.CloseWrite()
				wantEOF(t, first)
				wantEOF(t, second)
				wantEnd(t, pair, Finished)
				c.copies.Wait()
				client, upstream := pair.Traffic()
				if !client.Finished || !upstream.Finished {
					t.Errorf("finished: %v and %v", client.Finished, upstream.Finished)
				}
			})
		}
		l.empty()
	})
}

// TestReset checks that a reset of one end reaches the other one, and ends the pair.
func TestReset(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		for _, who := range []string{"client", "server", "Abort"} {
			t.Run(who, func(t *testing.T) {
				c, s := l.connect(), newStreams()
				c.mustExchange(s, 1000)
				pair := c.take()
				c.mustExchange(s, 1000)
				var left []*net.TCPConn
				switch who {
				case "client":
					c.client.SetLinger(0)
					c.client.Close()
					left = []*net.TCPConn{c.server}
				case "server":
					c.server.SetLinger(0)
					c.server.Close()
					left = []*net.TCPConn{c.client}
				default:
					// The ends have nothing to send by which they would learn of it.
					nettest.Eventually(t, "the last acknowledgements", pair.entry.settled)
					if err := errors.Join(c.client.SetKeepAlive(false), c.server.SetKeepAlive(false)); err != nil {
						t.Fatal(err)
					}
					if err := pair.Abort(); err != nil {
						t.Error(err)
					}
					left = []*net.TCPConn{c.client, c.server}
				}
				for _, end := range left {
					wantReset(t, end)
				}
				wantEnd(t, pair, Reset)
				c.copies.Wait()
			})
		}
		l.empty()
	})
}

// TestForgotten checks that a client that has forgotten its connection can connect again from the
// same port.
func TestForgotten(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		c, s := l.connect(), newStreams()
		c.mustExchange(s, 1000)
		pair := c.take()
		c.mustExchange(s, 1000)
		addr := c.client.LocalAddr().String()
		if err := control(c.client, func(fd int) error { return errors.Join(freeze(fd), discard(fd)) }); err != nil {
			t.Fatal(err)
		}
		c.client.Close()
		again, s := l.connectFrom(addr), newStreams()
		again.mustExchange(s, 1000)
		wantEnd(t, pair, Reset)
		second := again.take()
		again.mustExchange(s, 1000)
		again.client.CloseWrite()
		wantEOF(t, again.server)
		again.server.CloseWrite()
		wantEnd(t, second, Finished)
		l.empty()
	})
}

// TestSamePort checks that a port can be used again as soon as a pair has ended.
func TestSamePort(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	addr := ""
	for range 5 {
		c, s := l.connectFrom(addr), newStreams()
		addr = c.client.LocalAddr().String()
		c.mustExchange(s, 1000)
		pair := c.take()
		c.mustExchange(s, 1000)
		c.server.CloseWrite() // so that the client's port is not in TIME_WAIT
		wantEOF(t, c.client)
		c.client.Close()
		wantEOF(t, c.server)
		wantEnd(t, pair, Finished)
	}
	l.empty()
}

// TestMany checks 100 takeovers and ways back at once, some of which end meanwhile.
func TestMany(t *testing.T) {
	l := newLab(t, false, nil)
	var all sync.WaitGroup
	for i := range 100 {
		c, s := l.connect(), newStreams()
		all.Go(func() {
			if err := l.churn(c, s, i); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			c.client.Close()
			c.server.Close()
			c.down.Close()
			c.up.Close()
			c.copies.Wait()
		})
	}
	all.Wait()
	l.empty()
	if err := l.program.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// churn takes a chain over and back while bytes move, and ends it in one of several ways.
func (l *lab) churn(c *chain, s *streams, i int) error {
	moved := make(chan error, 1)
	go func() { moved <- c.exchange(s, 1<<20) }()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		pair, err := l.takePatiently(ctx, c)
		if err != nil {
			return err
		}
		down, up, err := pair.Return(ctx)
		for errors.Is(err, ErrTimeout) { // the machine is busy
			down, up, err = pair.Return(ctx)
		}
		if err != nil {
			return err
		}
		c.copies.Wait()
		c.down, c.up = down, up
		c.relay()
	}
	if err := <-moved; err != nil {
		return err
	}
	pair, err := l.takePatiently(ctx, c)
	if err != nil {
		return err
	}
	if err := c.exchange(s, 1000); err != nil {
		return err
	}
	switch i % 3 {
	case 0:
		c.client.CloseWrite()
		c.server.CloseWrite()
	case 1:
		c.client.SetLinger(0)
		c.client.Close()
	case 2:
		return pair.Abort()
	}
	select {
	case <-pair.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takePatiently takes a chain over. A busy machine may need several attempts.
func (l *lab) takePatiently(ctx context.Context, c *chain) (*Pair, error) {
	for {
		pair, err := l.program.Take(ctx, c.down, c.up, 0)
		var refusal *Refusal
		if errors.As(err, &refusal) && refusal.Reason == RefusedBusy {
			continue
		}
		return pair, err
	}
}

// empty checks that nothing is left of the pairs.
func (l *lab) empty() {
	l.t.Helper()
	var pairs, steps, flows int
	l.program.keeper.do(func() {
		k := l.program.keeper
		pairs, steps = len(k.pairs), len(k.steps)+len(k.begun)
		for len(k.ended) > 0 {
			k.freeOldest()
		}
		flows = k.flows.len()
	})
	if pairs+steps+flows != 0 {
		l.t.Errorf("%d pairs, %d steps and %d flows are left", pairs, steps, flows)
	}
}

func wantEnd(t *testing.T, p *Pair, want End) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
	}
	if got := p.End(); got != want {
		t.Errorf("the pair: %v, want %v", got, want)
	}
}

func wantEOF(t *testing.T, c *net.TCPConn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
}

func wantReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("read %d bytes, %v, want a reset", n, err)
	}
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }

// TestLateFIN checks a takeover during which a FIN is between the program and our socket when the
// program begins to forward.
func TestLateFIN(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		c, s := l.connect(), newStreams()
		c.mustExchange(s, 1000)
		c.stall()
		k := l.program.keeper
		p := newPair(k, [2]tuple{tupleOf(c.down), tupleOf(c.up)})
		p.conns = [2]*net.TCPConn{c.down, c.up}
		taken := &taking{pair: p, result: make(chan error, 1)}
		k.do(func() {
			if err := k.prepare(taken); err != nil {
				t.Error(err)
			}
		})
		c.client.CloseWrite()
		var views [2]peekView
		nettest.Eventually(t, "the FIN", func() bool {
			k.do(func() { views, _ = k.peeker.peek(p.ends[0], p.ends[1]) })
			return views[fromClient].State != established
		})
		k.do(func() {
			if err := k.startPending(taken, &views); err != nil {
				t.Error(err)
			}
			k.begin(func(now time.Time) time.Duration { return k.settle(taken, now) })
		})
		c.relay()
		if err := <-taken.result; err != nil {
			t.Fatal(err)
		}
		wantEOF(t, c.server)
		if err := errors.Join(send(c.server, s.sentDown, 100<<10), expect(c.client, s.gotDown, 100<<10)); err != nil {
			t.Error(err)
		}
		c.server.CloseWrite()
		wantEOF(t, c.client)
		wantEnd(t, p, Finished)
		l.empty()
	})
}

// TestPlaces checks takeovers of connections whose sockets or interfaces are special.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(l *lab){
		"IPv4 on an IPv6 port": func(l *lab) {
			l.relayed.Close()
			l.relayed = l.listen(l.relay, "[::]:4433")
		},
		"both ends behind one interface": func(l *lab) {
			l.served.Close()
			l.served = l.listen(l.client, "10.1.0.1:4444")
		},
		"behind a gateway": func(l *lab) {
			l.served.Close()
			l.server.Address("lo", "10.9.0.1/32")
			l.relay.Route("10.9.0.1/32", "10.2.0.1")
			l.served = l.listen(l.server, "10.9.0.1:4433")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, false, nil)
			prepare(l)
			c, s := l.connectTo(l.addr("10.1.0.2", "")), newStreams()
			c.mustExchange(s, 1000)
			for range 2 {
				pair := c.take()
				c.mustExchange(s, 1<<20)
				c.takeBack(pair)
				c.mustExchange(s, 1000)
			}
			l.clean()
			l.empty()
		})
	}
}

// TestTakeAfterPause checks that both ends are asked for their windows as soon as packets are forwarded, and
// answer our sockets, although what was forwarded in between has later timestamps: the ends have been silent
// for so long that their clocks have gone on.
func TestTakeAfterPause(t *testing.T) {
	t.Parallel()
	l := newLab(t, false, nil)
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pause := time.Now()
	nettest.Eventually(t, "clocks to go on", func() bool { return time.Since(pause) > 300*time.Millisecond })
	pair := c.take()
	if stats, err := l.program.Stats(); err != nil || stats[Copied] != 2 {
		t.Errorf("%d answers in PENDING, %v; want one of each end", stats[Copied], err)
	}
	c.mustExchange(s, 1000)
	l.clean()
	c.takeBack(pair)
	c.mustExchange(s, 1000)
	l.clean()
}
