package tcptest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialer(l net.Listener) func() (*net.TCPConn, error) {
	return func() (*net.TCPConn, error) { return net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)) }
}

// relayed starts a server, and a relay to it by whose dialer clients reach the server.
func relayed(t *testing.T, r *Relay) (*Server, func() (*net.TCPConn, error)) {
	t.Helper()
	upstream, front := listen(t), listen(t)
	server := Serve(upstream, r.Prefix)
	r.Dial = dialer(upstream)
	var running sync.WaitGroup
	running.Go(func() { r.Serve(front) })
	t.Cleanup(func() {
		front.Close()
		running.Wait()
		server.Close()
	})
	return server, dialer(front)
}

// TestExchanges runs an exchange with each end and of each shape, at the same time.
func TestExchanges(t *testing.T) {
	server, dial := relayed(t, &Relay{Prefix: []byte("PROXY UNKNOWN\r\n")})
	shapes := []Exchange{{Up: 1 << 20, Down: 1 << 20, Pause: time.Millisecond}, {Up: 300, Down: 1 << 20}, {Up: 1 << 20, Down: 2, Slow: time.Millisecond}}
	var running sync.WaitGroup
	for i, x := range shapes {
		for _, end := range Ends() {
			x := x
			x.End = end
			x.Seed = uint64(i)<<8 | uint64(x.End)
			running.Go(func() {
				if err := server.Run(x, dial); err != nil {
					t.Errorf("%d up, %d down, %v: %v", x.Up, x.Down, x.End, err)
				}
			})
		}
	}
	running.Wait()
}

// TestContinue checks that a relay goes on with other sockets where the old ones stopped.
func TestContinue(t *testing.T) {
	var continued atomic.Bool
	server, dial := relayed(t, &Relay{Each: func(c *Conn) {
		client, upstream := c.Sockets()
		var files [2]*net.TCPConn
		for i, old := range []*net.TCPConn{client, upstream} {
			f, err := old.File() // the same connection by another descriptor
			if err != nil {
				t.Error(err)
				return
			}
			conn, err := net.FileConn(f)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Error(err)
				return
			}
			files[i] = conn.(*net.TCPConn)
		}
		client.SetReadDeadline(time.Unix(1, 0))
		upstream.SetReadDeadline(time.Unix(1, 0))
		c.Continue(files[0], files[1])
		client.Close()
		upstream.Close()
		continued.Store(true)
	}})
	if err := server.Run(Exchange{Up: 1 << 20, Down: 1 << 20, Pause: time.Millisecond}, dial); err != nil {
		t.Error(err)
	}
	if !continued.Load() {
		t.Error("the relay has not gone on with other sockets")
	}
}

// TestExchangeFinds checks that the ends see what a relay does wrong.
func TestExchangeFinds(t *testing.T) {
	x := Exchange{Seed: 5, Up: 100 << 10, Down: 100 << 10, Timeout: 500 * time.Millisecond}
	for name, test := range map[string]struct {
		end  End
		up   func(w io.Writer, r io.Reader) error // copies the client's bytes
		want string
	}{
		"a wrong byte": {0, func(w io.Writer, r io.Reader) error { return alter(w, r, 50<<10) }, "wrong byte at"},
		"an early end": {0, func(w io.Writer, r io.Reader) error { _, err := io.CopyN(w, r, 60<<10); return err }, "EOF"},
		"bytes behind the end": {0, func(w io.Writer, r io.Reader) error {
			_, err := io.Copy(w, io.MultiReader(r, strings.NewReader("more")))
			return err
		}, "more bytes than were sent"},
		"a reset that becomes an end": {ClientResets, func(w io.Writer, r io.Reader) error { _, err := io.Copy(w, r); return err }, "want a reset"},
		"nothing":                     {0, func(io.Writer, io.Reader) error { time.Sleep(2 * x.Timeout); return nil }, "does not arrive"},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, front := listen(t), listen(t)
			server := Serve(upstream, nil)
			x := x
			x.End = test.end
			defer server.Close()
			defer front.Close()
			done := make(chan struct{})
			go func() {
				client, err := front.AcceptTCP()
				if err != nil {
					return
				}
				conn, err := dialer(upstream)()
				if err != nil {
					return
				}
				go io.Copy(client, conn)
				test.up(conn, client)
				conn.CloseWrite()
				<-done // so that no reset follows the end
				client.Close()
				conn.Close()
			}()
			err := server.Run(x, dialer(front))
			close(done)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// alter copies, and changes one byte.
func alter(w io.Writer, r io.Reader, at int64) error {
	if _, err := io.CopyN(w, r, at); err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, 1); err != nil {
		return err
	}
	b.Bytes()[0] ^= 1
	_, err := io.Copy(w, io.MultiReader(&b, r))
	return err
}
