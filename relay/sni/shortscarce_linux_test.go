package sni

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// withoutDescriptors leaves the process no more descriptors until the function that it returns
// is called.
func withoutDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return restore
}

// growOld has a connection in a loop reach the age at which it is no longer short.
func growOld(c *conn) {
	c.mu.Lock()
	l := c.short.loop
	c.mu.Unlock()
	done := make(chan struct{})
	l.post(func() {
		c.began = time.Now().Add(-l.server.short.age)
		close(done)
	})
	<-done
}

// TestShortWithoutDescriptors checks that a connection that cannot leave its loop goes on there,
// and leaves when it can.
func TestShortWithoutDescriptors(t *testing.T) {
	for name, limits := range map[string]shortLimits{"bytes": {time.Hour, 0}, "age": {time.Hour, math.MaxUint64}} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			withLimits(t, limits)
			s := newServer(t, &Config{Routes: routeTo(u)})
			client, upstream := open(t, s, u, "a.test")
			restore := withoutDescriptors(t)
			if limits.bytes > 0 {
				growOld(onlyConn(t, s))
			}
			old := time.Now()
			for i := 0; i < 3 || time.Since(old) < 2*acceptPause; i++ { // until it has tried again
				b := []byte{byte(i)}
				if _, err := client.Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(upstream, b); err != nil || b[0] != byte(i) {
					t.Fatalf("got %v, %v", b, err)
				}
				time.Sleep(time.Millisecond) // for a loop that is not busy
			}
			if !onlyConn(t, s).isShort() {
				t.Error("the connection has left its loop")
			}
			const size = 16 << 20 // more than fits between the ends
			go func() {
				_, _ = io.CopyN(client, zeros{}, size) // the other side counts
				_ = client.CloseWrite()
			}()
			if _, err := io.ReadFull(upstream, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			restore()
			nettest.Eventually(t, "leave the loop", func() bool { return !onlyConn(t, s).isShort() })
			if n, err := io.Copy(io.Discard, upstream); err != nil || n != size-1 {
				t.Errorf("%d bytes arrived, %v", n, err)
			}
		})
	}
}

// TestDialWithoutDescriptors checks that a client whose upstream cannot be dialed, as this host
// lacks descriptors, gets the alert.
func TestDialWithoutDescriptors(t *testing.T) {
	onWays(t, inLoop, func(t *testing.T) {
		s := newServer(t, &Config{Routes: routeTo(newUpstream(t))})
		client := dial(t, s)
		hello := helloOf(t, "a.test")
		nettest.Eventually(t, "accepted", func() bool { return s.Stats().Accepted == 1 })
		withoutDescriptors(t)
		if _, err := client.Write(hello); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, internalError) {
			t.Errorf("got %x, %v", got, err)
		}
		wantFailed(t, s, UpstreamFailed, 1)
		if n := s.Stats().DialFailures; n != 1 {
			t.Errorf("%d failures", n)
		}
	})
}

// TestAcceptLogBlocks checks that a server whose log blocks accepts again when it has descriptors
// again.
func TestAcceptLogBlocks(t *testing.T) {
	onWays(t, inLoop, func(t *testing.T) {
		u := newUpstream(t)
		log := &stuckLog{slog.DiscardHandler, make(chan struct{})}
		s := newServer(t, &Config{Routes: routeTo(u), Logger: slog.New(log)})
		t.Cleanup(func() { close(log.released) }) // before the server closes
		open(t, s, u, "a.test")                   // the server has started its loops
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(client) })
		restore := withoutDescriptors(t)
		if err := unix.Connect(client, &unix.SockaddrInet4{Port: int(s.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, "failures to accept", func() bool { return s.Stats().AcceptErrors > uint64(runtime.GOMAXPROCS(0)) })
		restore()
		open(t, s, u, "a.test")
	})
}

// stuckLog is a log that blocks.
type stuckLog struct {
	slog.Handler
	released chan struct{}
}

func (l *stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *stuckLog) Handle(context.Context, slog.Record) error {
	<-l.released
	return nil
}

// TestLogBlocks checks that a log that blocks stops no other connection.
func TestLogBlocks(t *testing.T) {
	onWays(t, inLoop, func(t *testing.T) {
		u, down := newUpstream(t), newUpstream(t)
		down.Close()
		log := &stuckLog{slog.DiscardHandler, make(chan struct{})}
		s := newServer(t, &Config{Routes: routesTo("a.test", u.addr(), "down.test", down.addr()), Logger: slog.New(log)})
		t.Cleanup(func() { close(log.released) }) // before the server closes
		for i := range 4 {
			client, upstream := open(t, s, u, "a.test")
			client.Close()
			upstream.Close()
			for _, hello := range [][]byte{helloOf(t, "down.test"), []byte("\x16\x03\x01\x00\x05\x02\x00\x00\x00\x00")} {
				if _, err := dial(t, s).Write(hello); err != nil {
					t.Fatal(err)
				}
			}
			nettest.Eventually(t, "the failures", func() bool {
				return s.Stats().DialFailures == uint64(i+1) && s.Stats().Failed[HelloInvalid] == uint64(i+1)
			})
		}
		open(t, s, u, "a.test")
	})
}
