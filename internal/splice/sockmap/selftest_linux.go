package sockmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// quiet is the time after which a row of the self test fails if nothing moves.
const quiet = 3 * time.Second

// relayer relays between two sockets until stop is called or both ends have finished. It may
// close the sockets.
type relayer func(client, upstream *net.TCPConn) (stop func(), err error)

// rows are the tests that the kernel has to pass, those first that take least time.
var rows = []struct {
	name string
	test func(relayer) error
}{
	{"bytes before the takeover", testBytesBefore},
	{"reset", testReset},
	{"backpressure", testBackpressure},
	{"1 MiB and FIN", func(relay relayer) error { return testEnd(relay, 1<<20) }},
	{"64 KiB and FIN, 200 times", testManyEnds},
	{"32 MiB and FIN", func(relay relayer) error { return testEnd(relay, 32<<20) }},
	{"both ways with slow readers", testSlowReaders},
}

// selfTest returns a *RefusedError if a relay fails a row.
func selfTest(relay relayer) error {
	for _, row := range rows {
		if err := row.test(relay); err != nil {
			return &RefusedError{row.name, err}
		}
	}
	return nil
}

// relay is Take for sockets of which nothing was read. What has arrived is left to the kernel.
func (p *Program) relay(client, upstream *net.TCPConn) (stop func(), err error) {
	pair, err := p.newPair(client, upstream)
	if err == nil {
		err = pair.begin()
	}
	if err != nil {
		return nil, err
	}
	return pair.Abort, nil
}

// bed is a client and a server on loopback, with the sockets of a relay between them.
type bed struct {
	client, server *net.TCPConn
	a, b           *net.TCPConn // the relay's, to the client and to the server
	stop           func()       // of the relay; or nil
}

func newBed() (*bed, error) {
	bed := &bed{}
	var err, err2 error
	bed.client, bed.a, err = connect()
	bed.b, bed.server, err2 = connect()
	if err := errors.Join(err, err2); err != nil {
		bed.close()
		return nil, err
	}
	return bed, nil
}

// start starts the relay.
func (b *bed) start(relay relayer) (err error) {
	b.stop, err = relay(b.a, b.b)
	return err
}

// newRelayed is newBed and start.
func newRelayed(relay relayer) (*bed, error) {
	bed, err := newBed()
	if err != nil {
		return nil, err
	}
	if err := bed.start(relay); err != nil {
		bed.close()
		return nil, err
	}
	return bed, nil
}

// close resets what is open.
func (b *bed) close() {
	if b.stop != nil {
		b.stop()
	}
	for _, conn := range []*net.TCPConn{b.client, b.server, b.a, b.b} {
		if conn != nil {
			reset(conn)
		}
	}
}

// reset closes a connection with a reset. An error says that it has ended already.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// connect returns the two ends of a connection.
func connect() (dialed, accepted *net.TCPConn, err error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(quiet))
	if dialed, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err != nil {
		return nil, nil, err
	}
	accepted, err = l.AcceptTCP()
	return dialed, accepted, err
}

// testBytesBefore checks that bytes that have arrived before the takeover are relayed.
func testBytesBefore(relay relayer) error {
	b, err := newBed()
	if err != nil {
		return err
	}
	defer b.close()
	const sent = "before"
	if _, err := io.WriteString(b.client, sent); err != nil {
		return err
	}
	side, err := newSide(b.a)
	if err != nil {
		return err
	}
	until := time.Now().Add(quiet)
	for n := 0; n < len(sent) && time.Now().Before(until); time.Sleep(100 * time.Microsecond) {
		if n, err = side.unread(); err != nil {
			return err
		}
	}
	if err := b.start(relay); err != nil {
		return err
	}
	if err := b.client.CloseWrite(); err != nil {
		return err
	}
	if got, err := io.ReadAll(lively{b.server}); err != nil || string(got) != sent {
		return fmt.Errorf("%q and %v arrived, want %q and the end", got, err, sent)
	}
	return nil
}

// testReset checks that a reset is one at the other side.
func testReset(relay relayer) error {
	b, err := newRelayed(relay)
	if err != nil {
		return err
	}
	defer b.close()
	if _, err := b.client.Write([]byte{1}); err != nil {
		return err
	}
	one := make([]byte, 1)
	if _, err := (lively{b.server}).Read(one); err != nil {
		return err
	}
	reset(b.client)
	if n, err := (lively{b.server}).Read(one); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%d bytes and %v at the other side, want a reset", n, err)
	}
	return nil
}

const (
	// smallBuffer is the size of each of the sockets' buffers in testBackpressure, which the
	// system doubles, and tooMuch the number of bytes that cannot be in all of them.
	smallBuffer = 64 << 10
	tooMuch     = 16 << 20
	// writeTime is the time after which a writer counts as blocked.
	writeTime = 500 * time.Millisecond
)

// testBackpressure checks that a reader that reads nothing stops the writer, and gets all of
// it later.
func testBackpressure(relay relayer) error {
	b, err := newBed()
	if err != nil {
		return err
	}
	defer b.close()
	for _, conn := range []*net.TCPConn{b.client, b.a, b.b, b.server} {
		if err := errors.Join(conn.SetReadBuffer(smallBuffer), conn.SetWriteBuffer(smallBuffer)); err != nil {
			return err
		}
	}
	if err := b.start(relay); err != nil {
		return err
	}
	sent, data := 0, make([]byte, smallBuffer)
	for err == nil {
		if sent >= tooMuch {
			return fmt.Errorf("%d MiB were taken from a writer while the reader read nothing", sent>>20)
		}
		if err := b.client.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		var n int
		n, err = b.client.Write(data)
		sent += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if n, err := io.CopyN(io.Discard, lively{b.server}, int64(sent)); err != nil {
		return fmt.Errorf("%d of %d bytes arrived: %w", n, sent, err)
	}
	return nil
}

// testEnd checks that all bytes arrive before the end.
func testEnd(relay relayer, size int) error {
	b, err := newRelayed(relay)
	if err != nil {
		return err
	}
	defer b.close()
	return together(
		func() error { return send(b.client, size) },
		func() error { return receive(b.server, size) },
	)
}

// testManyEnds is testEnd with sizes around 64 KiB.
func testManyEnds(relay relayer) error {
	for i := range 200 {
		if err := testEnd(relay, 64<<10+i); err != nil {
			return fmt.Errorf("the %d. time: %w", i+1, err)
		}
	}
	return nil
}

// testSlowReaders checks that all bytes arrive in both directions if the readers begin late.
func testSlowReaders(relay relayer) error {
	const size = 8 << 20
	b, err := newRelayed(relay)
	if err != nil {
		return err
	}
	defer b.close()
	late := func(conn *net.TCPConn) error {
		time.Sleep(100 * time.Millisecond)
		return receive(conn, size)
	}
	return together(
		func() error { return send(b.client, size) },
		func() error { return send(b.server, size) },
		func() error { return late(b.client) },
		func() error { return late(b.server) },
	)
}

// together calls functions at the same time, and returns their errors.
func together(functions ...func() error) error {
	errs := make([]error, len(functions))
	var all sync.WaitGroup
	for i, f := range functions {
		all.Go(func() { errs[i] = f() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// lively is a connection whose reads and writes fail when nothing moves.
type lively struct{ conn *net.TCPConn }

func (l lively) Read(b []byte) (int, error) {
	if err := l.conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		return 0, err
	}
	return l.conn.Read(b)
}

func (l lively) Write(b []byte) (int, error) {
	if err := l.conn.SetWriteDeadline(time.Now().Add(quiet)); err != nil {
		return 0, err
	}
	return l.conn.Write(b)
}

// stream returns bytes of which no two blocks are equal, the same for each call.
func stream(size int) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), int64(size)) }

// send sends a stream and its end.
func send(conn *net.TCPConn, size int) error {
	if _, err := io.Copy(lively{conn}, stream(size)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return conn.CloseWrite()
}

// receive reads until the end, and checks that it has got the stream.
func receive(conn *net.TCPConn, size int) error {
	want := stream(size)
	buf, expected := make([]byte, 64<<10), make([]byte, 64<<10)
	for got := 0; ; {
		n, err := lively{conn}.Read(buf)
		if wanted, _ := io.ReadFull(want, expected[:n]); !bytes.Equal(buf[:n], expected[:wanted]) {
			return fmt.Errorf("other bytes than those that were sent, after %d of %d", got, size)
		}
		got += n
		switch {
		case err == io.EOF && got == size:
			return nil
		case err != nil:
			return fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
}
