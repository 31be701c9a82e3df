package sockmap

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// load loads the program without the self test, which no kernel passes that was tested.
func load(t *testing.T) *Program {
	t.Helper()
	p, err := LoadUntested(0)
	if errors.Is(err, ErrPermission) || errors.Is(err, ErrUnsupported) {
		nettest.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if len(p.pairs) > 0 {
			t.Errorf("%d pairs are left", len(p.pairs))
		}
	})
	return p
}

// hoards is the row that no kernel passes which was tested.
const hoards = "backpressure"

// TestRows checks each row of the self test on this kernel.
func TestRows(t *testing.T) {
	p := load(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := row.test(p.relay)
			if row.name == hoards {
				t.Logf("backpressure: %v", err) // later kernels may have it
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLoad checks that Load refuses this kernel, says why, and leaves nothing.
func TestLoad(t *testing.T) {
	backpressure := testBackpressure(load(t).relay) == nil
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	p, err := Load(0)
	if backpressure && err == nil {
		p.Close()
	} else {
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Row != hoards || !errors.Is(err, ErrUnsupported) {
			t.Errorf("got %v, want a refusal for %s", err, hoards)
		}
	}
	// A goroutine that has done its work is still there for a moment.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > goroutines || openFiles(t) > files; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d open files are left, %d and %d before", runtime.NumGoroutine(), openFiles(t), goroutines, files)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestSelfTest checks that a relay that works passes all rows, and that each row finds a fault
// of its own.
func TestSelfTest(t *testing.T) {
	for _, tc := range []struct {
		row   string // that finds it
		fault fault
	}{
		{"", fault{}},
		{"bytes before the takeover", fault{loseFirst: true}},
		{"reset", fault{hideReset: true}},
		{"backpressure", fault{hoard: true}},
		{"1 MiB and FIN", fault{flipAfter: 1000}},
		{"64 KiB and FIN, 200 times", fault{cutEvery: 100}},
		{"32 MiB and FIN", fault{flipAfter: 1 << 20}},
		{"both ways with slow readers", fault{cutAnswers: true}},
	} {
		t.Run(tc.row, func(t *testing.T) {
			t.Parallel()
			err := selfTest(tc.fault.relayer())
			var refused *RefusedError
			if tc.row == "" && err != nil || tc.row != "" && (!errors.As(err, &refused) || refused.Row != tc.row) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// fault is what is wrong with a relay in userspace.
type fault struct {
	loseFirst  bool // it loses the bytes that it reads first, in connections that begin with them
	hideReset  bool // it turns a reset into an end
	hoard      bool // it reads what it cannot write
	flipAfter  int  // it changes a byte after so many in a direction
	cutEvery   int  // it cuts the end of one of so many connections
	cutAnswers bool // it cuts the end of what the upstream sends
}

// relayer returns a relay with the fault.
func (f fault) relayer() relayer {
	relays := 0
	return func(client, upstream *net.TCPConn) (stop func(), err error) {
		relays++
		cut := f.cutEvery > 0 && relays%f.cutEvery == 0
		var copying sync.WaitGroup
		copying.Go(func() { f.copy(upstream, client, cut) })
		copying.Go(func() { f.copy(client, upstream, f.cutAnswers) })
		return func() {
			reset(client)
			reset(upstream)
			copying.Wait()
		}, nil
	}
}

// copy copies one direction. The other end sees what becomes of the connection.
func (f fault) copy(dst, src *net.TCPConn, cut bool) {
	r := io.Reader(src)
	if f.hoard {
		hoard := newHoard(src)
		defer hoard.Close()
		r = hoard
	}
	if _, err := io.Copy(dst, &faulty{Reader: r, fault: f, cut: cut}); err != nil && !f.hideReset {
		reset(dst)
		return
	}
	_ = dst.CloseWrite()
}

// faulty reads with a fault.
type faulty struct {
	io.Reader
	fault
	cut   bool
	total int
}

func (r *faulty) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	first := r.total == 0
	r.total += n
	switch {
	case r.loseFirst && first && n == len("before"):
		return r.Read(b)
	case r.flipAfter > 0 && r.total > r.flipAfter && n > 1:
		b[n-1] ^= 1
	case r.cut && n > 1:
		n--
	}
	return n, err
}

// newHoard returns a reader of all that a connection receives, however slowly it is read.
func newHoard(src io.Reader) *io.PipeReader {
	r, w := io.Pipe()
	blocks := make(chan []byte, 1<<16)
	failed := make(chan error, 1)
	go func() {
		for b := range blocks {
			_, _ = w.Write(b) // fails when the reader is closed
		}
		_ = w.CloseWithError(<-failed) // never fails
	}()
	go func() {
		defer close(blocks)
		for {
			b := make([]byte, 64<<10)
			n, err := src.Read(b)
			if err != nil {
				failed <- err
				return
			}
			blocks <- b[:n]
		}
	}()
	return r
}

// patience is the time after which a test gives up.
const patience = 20 * time.Second
