package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// listenUnpolled opens a socket without Go's poller.
func listenUnpolled(t *testing.T) *Socket {
	t.Helper()
	s, err := New(listenNet(t), &Config{Unpolled: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// polled says whether an epoll instance of this process waits for a socket.
func polled(t *testing.T, s *Socket) bool {
	t.Helper()
	raw, err := s.Conn().(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		b, _ := os.ReadFile(info) // it may have been closed
		if bytes.Contains(b, []byte("tfd:")) && bytes.Contains(b, fmt.Appendf(nil, "ino:%x ", st.Ino)) {
			return true
		}
	}
	return false
}

// TestUnpolledIsNotPolled checks that Go's poller does not know a socket, which it does by default.
func TestUnpolledIsNotPolled(t *testing.T) {
	if !polled(t, listen(t, "udp", "127.0.0.1:0", nil)) {
		t.Error("Go's poller does not know a socket, or the test does not see it")
	}
	if polled(t, listenUnpolled(t)) {
		t.Error("Go's poller knows a socket that should be without it")
	}
}

// TestUnpolledRoundTrip has a goroutine wait for datagrams that come one after the other, and for
// trains, and checks that neither reads nor writes allocate.
func TestUnpolledRoundTrip(t *testing.T) {
	a, b := listenUnpolled(t), listenUnpolled(t)
	in, back := make([]Message, 64), make([]Message, 64)
	echoed := make(chan error, 1)
	go func() {
		for {
			n, err := b.ReadBatch(back)
			if err == nil {
				for i := range back[:n] {
					back[i].HopLimit = 0
				}
				err = b.WriteBatch(back[:n])
			}
			if err != nil {
				echoed <- err
				return
			}
		}
	}()
	out := []Message{{Data: pattern(12_000), SegmentSize: 1200, Remote: b.LocalAddr(), ECN: 1}, {Data: pattern(100), Remote: b.LocalAddr()}}
	n := testing.AllocsPerRun(100, func() {
		for i := range out {
			if err := a.WriteBatch(out[i : i+1]); err != nil {
				t.Fatal(err)
			}
			for left := out[i].Count(); left > 0; {
				got, err := a.ReadBatch(in)
				if err != nil {
					t.Fatal(err)
				}
				for k := range in[:got] {
					left -= in[k].Count()
					if in[k].ECN != out[i].ECN || !bytes.HasPrefix(in[k].Data, out[i].Data[:100]) {
						t.Fatalf("message %d has come back changed", i)
					}
				}
			}
		}
	})
	if n >= 1 && !nettest.RaceDetector {
		t.Errorf("%v allocations", n)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-echoed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the blocked read returns %v, want %v", err, net.ErrClosed)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := b.Write(&out[1]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write returns %v, want %v", err, net.ErrClosed)
	}
}

// TestUnpolledWriters checks that of many writers that find no room one waits for the socket: a thread
// waits with it.
func TestUnpolledWriters(t *testing.T) {
	u := listenUnpolled(t).conn.(*unpolled)
	var waiting atomic.Int32
	var writers sync.WaitGroup
	for range 100 {
		writers.Go(func() {
			calls := 0
			err := u.Write(func(uintptr) bool {
				calls++
				if calls == 1 { // no room
					return false
				}
				if n := waiting.Add(1); n > 1 {
					t.Errorf("%d writers wait at the same time", n)
				}
				runtime.Gosched()
				waiting.Add(-1)
				return calls == 10
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
}

// TestUnpolledCloseWithWriters checks that Close ends all writers.
func TestUnpolledCloseWithWriters(t *testing.T) {
	s := listenUnpolled(t)
	var writers sync.WaitGroup
	var began atomic.Int32
	for range 20 {
		writers.Go(func() {
			err := s.conn.(*unpolled).Write(func(uintptr) bool { began.Add(1); return false })
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("write returns %v, want %v", err, net.ErrClosed)
			}
		})
	}
	for began.Load() < 20 {
		runtime.Gosched()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	writers.Wait()
}

// TestUnpolledVirtual checks that QUIC over a socket without Go's poller has marks, batches and local
// addresses, as over any other socket of the kernel.
func TestUnpolledVirtual(t *testing.T) {
	conn, err := NewVirtual(&VirtualConfig{Socket: listenUnpolled(t), Send: func(*Message) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(quic.OOBCapablePacketConn); !ok {
		t.Errorf("quic-go uses %T packet by packet", conn)
	}
}
