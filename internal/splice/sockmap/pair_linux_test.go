package sockmap

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bedOf is newBed for tests.
func bedOf(t *testing.T) *bed {
	t.Helper()
	b, err := newBed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	deadline := time.Now().Add(patience)
	if err := errors.Join(b.client.SetDeadline(deadline), b.server.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	return b
}

// take is Program.Take for tests.
func (b *bed) take(t *testing.T, p *Program) *Pair {
	t.Helper()
	pair, err := p.Take(b.a, b.b)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// wantEnd waits until a pair has ended.
func wantEnd(t *testing.T, pair *Pair, want End) {
	t.Helper()
	select {
	case <-pair.Done():
	case <-time.After(patience):
		t.Error("the pair has not ended")
		return
	}
	if got := pair.End(); got != want {
		t.Errorf("the pair has %v, want %v", got, want)
	}
}

// TestTakeMidStream checks that no byte is lost, repeated or overtaken if the kernel takes over
// while both ends send, after the relay has read a part of what came, and has sent bytes of its
// own. On a busy machine the bytes may always arrive faster than they are copied. So in half of the
// connections both ends pause in the middle until the relay has tried.
func TestTakeMidStream(t *testing.T) {
	p := load(t)
	const own = "PROXY UNKNOWN\r\n"
	taken := 0
	for size := 1 << 20; size < 1<<20+50 && !t.Failed(); size++ {
		b := bedOf(t)
		tried := make(chan struct{})
		before := size
		if size%2 == 0 {
			before = size / 4
		}
		var all sync.WaitGroup
		for _, conn := range []*net.TCPConn{b.client, b.server} {
			all.Go(func() {
				if err := sendPausing(conn, size, before, tried); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			if err := receive(b.client, size); err != nil {
				t.Errorf("at the client: %v", err)
			}
		})
		all.Go(func() {
			if head := make([]byte, len(own)); !readsAs(b.server, head, own) {
				t.Errorf("the server got %q", head)
			}
			if err := receive(b.server, size); err != nil {
				t.Errorf("at the server: %v", err)
			}
		})
		first := make([]byte, 1000)
		if _, err := io.ReadFull(b.a, first); err != nil {
			t.Fatal(err)
		}
		if _, err := b.b.Write(append([]byte(own), first...)); err != nil {
			t.Fatal(err)
		}
		pair := takeOrCopy(t, p, b)
		close(tried)
		all.Wait()
		if pair == nil {
			continue
		}
		taken++
		wantEnd(t, pair, Finished)
		client, upstream := pair.Traffic()
		if most := uint64(size); client.Bytes > most-1000 || upstream.Bytes > most || !client.Finished || !upstream.Finished {
			t.Errorf("counted %+v and %+v of %d bytes", client, upstream, size)
		}
	}
	if taken < 25 && !t.Failed() {
		t.Error("the kernel did not take over all connections whose ends paused")
	}
	t.Logf("the kernel took over %d of 50 connections", taken)
}

// sendPausing is send, with a pause after some bytes.
func sendPausing(conn *net.TCPConn, size, before int, resume <-chan struct{}) error {
	r := stream(size)
	if _, err := io.CopyN(lively{conn}, r, int64(before)); err != nil {
		return err
	}
	<-resume
	if _, err := io.Copy(lively{conn}, r); err != nil {
		return err
	}
	return conn.CloseWrite()
}

func readsAs(r io.Reader, buf []byte, want string) bool {
	_, err := io.ReadFull(r, buf)
	return err == nil && string(buf) == want
}

// takeOrCopy lets the kernel take over, unless an end has sent all that it has to send before:
// then it relays in userspace.
func takeOrCopy(t *testing.T, p *Program, b *bed) *Pair {
	t.Helper()
	pair, err := p.Take(b.a, b.b)
	if err == nil {
		return pair
	}
	if !errors.Is(err, ErrNotEstablished) && !errors.Is(err, ErrNotQuiet) {
		t.Fatal(err)
	}
	if b.stop, err = (fault{}).relayer()(b.a, b.b); err != nil {
		t.Fatal(err)
	}
	return nil
}

// TestFinishedMeanwhile checks that the sockets are given back if an end finishes while the kernel
// takes over.
func TestFinishedMeanwhile(t *testing.T) {
	p := load(t)
	for name, ends := range map[string]func(*bed) (from, to, read, write *net.TCPConn){
		"client":   func(b *bed) (from, to, read, write *net.TCPConn) { return b.client, b.server, b.a, b.b },
		"upstream": func(b *bed) (from, to, read, write *net.TCPConn) { return b.server, b.client, b.b, b.a },
	} {
		t.Run(name, func(t *testing.T) {
			b := bedOf(t)
			from, to, read, write := ends(b)
			pair, err := p.newPair(b.a, b.b)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(pair.sides[0].mark(), pair.sides[1].mark(), from.CloseWrite()); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); pair.sides[0].isOpen(t) && pair.sides[1].isOpen(t); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the FIN has not arrived")
				}
			}
			if err := pair.takeLocked(); !errors.Is(err, ErrNotEstablished) {
				t.Fatalf("got %v, want ErrNotEstablished", err)
			}
			if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the end is %v", err)
			}
			_, err = io.WriteString(to, "more")
			if got := make([]byte, 4); err != nil || !readsAs(write, got, "more") {
				t.Errorf("%q, %v after the takeover", got, err)
			}
			if _, err := io.WriteString(read, "more"); err != nil || !readsAs(from, make([]byte, 4), "more") {
				t.Errorf("nothing arrives at the end that has finished: %v", err)
			}
		})
	}
}

// isOpen says whether neither end has finished.
func (s *side) isOpen(t *testing.T) bool {
	t.Helper()
	st, err := s.state()
	if err != nil {
		t.Fatal(err)
	}
	return st.open
}

// TestHalfClose checks that each end is passed on by itself, in both orders, and counted.
func TestHalfClose(t *testing.T) {
	p := load(t)
	for _, first := range []string{"client", "upstream"} {
		b := bedOf(t)
		pair := b.take(t, p)
		ends := []*net.TCPConn{b.client, b.server}
		if first == "upstream" {
			ends[0], ends[1] = ends[1], ends[0]
		}
		for i, from := range ends {
			if _, err := io.WriteString(from, "last"); err != nil {
				t.Fatal(err)
			}
			if err := from.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(ends[1-i]); err != nil || string(got) != "last" {
				t.Errorf("%s first: got %q, %v", first, got, err)
			}
		}
		wantEnd(t, pair, Finished)
		if client, upstream := pair.Traffic(); client != (Half{4, true}) || upstream != (Half{4, true}) {
			t.Errorf("counted %+v and %+v", client, upstream)
		}
	}
}

// TestReset checks that a reset of either end is one at the other, also after one direction has
// ended.
func TestReset(t *testing.T) {
	p := load(t)
	for _, by := range []string{"client", "upstream"} {
		for _, ended := range []bool{false, true} {
			b := bedOf(t)
			pair := b.take(t, p)
			from, to := b.client, b.server
			if by == "upstream" {
				from, to = to, from
			}
			if ended {
				if err := to.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(from); err != nil {
					t.Fatal(err)
				}
			}
			reset(from)
			wantReset(t, to)
			wantEnd(t, pair, Reset)
		}
	}
}

func wantReset(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %d bytes and %v, want a reset", n, err)
	}
}

// TestAbort checks that Abort and Close reset both ends, and what Take returns then.
func TestAbort(t *testing.T) {
	p := load(t)
	b, other := bedOf(t), bedOf(t)
	pair, second := b.take(t, p), other.take(t, p)
	for range 2 {
		pair.Abort()
	}
	wantEnd(t, pair, Reset)
	wantReset(t, b.client)
	wantReset(t, b.server)
	if second.End() != Running {
		t.Errorf("the other pair has %v", second.End())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wantEnd(t, second, Reset)
	wantReset(t, other.client)
	wantReset(t, other.server)
	late := bedOf(t)
	if _, err := p.Take(late.a, late.b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Take after Close: %v", err)
	}
}

// TestNotEstablished checks that connections are left alone of which an end has finished.
func TestNotEstablished(t *testing.T) {
	p := load(t)
	b := bedOf(t)
	if err := send(b.client, 1000); err != nil {
		t.Fatal(err)
	}
	side, err := newSide(b.a)
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if st, err := side.state(); err != nil || st.finished || time.Now().After(until) {
			break
		}
	}
	if _, err := p.Take(b.a, b.b); !errors.Is(err, ErrNotEstablished) {
		t.Fatalf("got %v", err)
	}
	if err := receive(b.a, 1000); err != nil {
		t.Errorf("in userspace: %v", err)
	}
	if _, err := b.b.Write([]byte{1}); err != nil {
		t.Error(err)
	}
}

// TestFull checks that a pair without room is refused and left alone, and that a pair that ends
// makes room.
func TestFull(t *testing.T) {
	load(t)
	p, err := LoadUntested(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, other := bedOf(t), bedOf(t)
	pair := b.take(t, p)
	if _, err := p.Take(other.a, other.b); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	pair.Abort()
	other.take(t, p)
	if err := send(other.client, 1000); err != nil {
		t.Fatal(err)
	}
	if err := receive(other.server, 1000); err != nil {
		t.Error(err)
	}
}

// TestManyPairs checks many pairs at the same time, in IPv6 too.
func TestManyPairs(t *testing.T) {
	p := load(t)
	var all sync.WaitGroup
	for i := range 64 {
		b := bedOf(t)
		if i%2 == 1 {
			reset(b.b)
			reset(b.server)
			b.b, b.server = connect6(t)
		}
		pair := b.take(t, p)
		all.Go(func() {
			err := together(
				func() error { return send(b.client, 1<<18+i) },
				func() error { return send(b.server, 1<<18+i) },
				func() error { return receive(b.client, 1<<18+i) },
				func() error { return receive(b.server, 1<<18+i) },
			)
			if err != nil {
				t.Errorf("pair %d: %v", i, err)
			}
			wantEnd(t, pair, Finished)
		})
	}
	all.Wait()
}

// connect6 is connect over IPv6.
func connect6(t *testing.T) (dialed, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp6", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	if err := s.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
