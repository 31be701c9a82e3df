package tunnel

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// train is what quic-go writes at once at most.
var train = &udp.Message{Data: make([]byte, 64*1200), SegmentSize: 1200}

// runQueue runs a Queue on a fake clock, with the other end of its connection.
func runQueue(t *testing.T, test func(t *testing.T, q *Queue, end net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		tcp := &Conn{Conn: ours}
		q := NewQueue(tcp, tcp)
		go q.Run()
		test(t, q, theirs)
		theirs.Close()
		q.Close()
	})
}

// TestPushWait checks that a sender that waits loses nothing, although the tunnel is slow, and
// that the queue does not become longer than what it waits for.
func TestPushWait(t *testing.T) {
	runQueue(t, func(t *testing.T, q *Queue, end net.Conn) {
		const trains = 100
		read := make(chan int)
		go func() {
			n := 0
			for _, err := range readAllSlowly(end) {
				if err != nil {
					break
				}
				n++
			}
			read <- n
		}()
		for range trains {
			if dropped := q.PushWait(train); dropped > 0 {
				t.Fatalf("%d dropped", dropped)
			}
			q.mu.Lock()
			held := len(q.pending) + q.writing
			q.mu.Unlock()
			if held > waitSize+2*len(train.Data) {
				t.Fatalf("%d bytes wait", held)
			}
		}
		q.Close()
		if n, want := <-read, trains*train.Count(); n != want {
			t.Errorf("%d datagrams arrived, want %d", n, want)
		}
	})
}

// readAllSlowly yields the datagrams of a stream, of which it reads 16 KiB every 10 ms.
func readAllSlowly(from io.Reader) func(func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		r, out := NewReader(from), make([]udp.Message, 32)
		for {
			time.Sleep(10 * time.Millisecond)
			n, err := r.Read(out)
			for i := range out[:n] {
				for d := range out[i].Segments() {
					if !yield(d, nil) {
						return
					}
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// TestPushWaitStalled checks that a sender waits for a tunnel that is not read only once, that
// the queue drops then, and that the sender waits again when the tunnel is read.
func TestPushWaitStalled(t *testing.T) {
	runQueue(t, func(t *testing.T, q *Queue, end net.Conn) {
		fill := func() (dropped int, took time.Duration) {
			began := time.Now()
			for range 2 * queueSize / len(train.Data) {
				dropped += q.PushWait(train)
			}
			return dropped, time.Since(began)
		}
		for range 2 {
			if dropped, took := fill(); dropped == 0 || took != patience {
				t.Errorf("%d dropped after %v, want some after %v", dropped, took, patience)
			}
			if dropped, took := fill(); dropped == 0 || took != 0 {
				t.Errorf("again: %d dropped after %v, want some at once", dropped, took)
			}
			if _, err := io.CopyN(io.Discard, end, batchSize); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
	})
}

// TestPushWaitClosed checks that nobody waits for a tunnel that ends.
func TestPushWaitClosed(t *testing.T) {
	runQueue(t, func(t *testing.T, q *Queue, end net.Conn) {
		began, waiting := time.Now(), make(chan int)
		go func() {
			dropped := 0
			for dropped == 0 {
				dropped = q.PushWait(train)
			}
			waiting <- dropped
		}()
		synctest.Wait()
		end.Close()
		if dropped := <-waiting; dropped != train.Count() || time.Since(began) > 0 {
			t.Errorf("%d dropped after %v, want all at once", dropped, time.Since(began))
		}
	})
}

// sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)      { return len(b), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
func (sink) Close() error                     { return nil }

// TestQueueDoesNotAllocate checks that a datagram costs no memory of its own.
func TestQueueDoesNotAllocate(t *testing.T) {
	tcp := &Conn{Conn: sink{}}
	q := NewQueue(tcp, tcp)
	go q.Run()
	defer q.Close()
	push := func() {
		for range 100 {
			q.PushWait(train)
		}
	}
	push()
	if n := testing.AllocsPerRun(10, push); n > 100 {
		t.Errorf("%v allocations for %d datagrams", n, 100*train.Count())
	}
}
