package tunnel

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

const (
	// queueSize is how many bytes a Queue holds, besides those that are being written. It
	// is what a path with 200 Mbit/s and 20 ms has under way.
	queueSize = 512 << 10
	// waitSize is how many bytes may wait, or be being written, when PushWait adds more.
	waitSize = 2 * batchSize
	// writeSize is how many bytes are a full TLS record.
	writeSize = 16 << 10
	// batchSize is how many bytes are written at a time: some records.
	batchSize = 4 * writeSize
	// A Queue that has been idle for idleTime keeps no buffers.
	idleTime = time.Second
	// stall is how long the other end may take to accept batchSize bytes.
	stall = 10 * time.Second
	// patience is how long PushWait waits until the other end accepts batchSize bytes.
	patience = 100 * time.Millisecond
	// lastWrites is how long Close waits until the queue has been written.
	lastWrites = time.Second
)

// Queue holds the datagrams that go into a tunnel until they are written. When it is full it
// drops datagrams, as a socket does. Make one with [NewQueue].
type Queue struct {
	conn  net.Conn
	tcp   *Conn
	ready chan struct{} // holds a token when there may be something to write
	done  chan struct{} // closed when Run has ended
	idle  *time.Timer   // used only by Run

	mu       sync.Mutex // guards the following
	pending  []byte     // capsules
	spare    []byte     // an empty buffer, to be the next pending
	writing  int        // bytes that have been taken out of pending and are not written yet
	closed   bool
	progress sync.Cond   // something has been written, or there is nothing to wait for
	timer    *time.Timer // sets slow
	timing   bool        // timer runs
	slow     bool        // nothing has been written for patience, though PushWait waited
}

// NewQueue makes a Queue of what is written to conn, which is TLS over tcp. The caller calls Run.
func NewQueue(conn net.Conn, tcp *Conn) *Queue {
	q := &Queue{conn: conn, tcp: tcp, ready: make(chan struct{}, 1), done: make(chan struct{}), idle: time.NewTimer(idleTime)}
	q.idle.Stop()
	q.progress.L = &q.mu
	q.timer = time.AfterFunc(patience, q.giveUp)
	q.timer.Stop()
	return q
}

// Push adds the datagrams of a message, and returns how many it has dropped. It never blocks, and
// may be called concurrently.
func (q *Queue) Push(m *udp.Message) (dropped int) {
	q.mu.Lock()
	dropped = q.pushLocked(m)
	q.mu.Unlock()
	q.wake()
	return dropped
}

// PushWait is Push, but waits while more than waitSize bytes wait to be written, as a socket
// does, so that a sender that is faster than the tunnel loses nothing. When a tunnel has written
// nothing for a tenth of a second, PushWait does not wait until the tunnel writes again.
func (q *Queue) PushWait(m *udp.Message) (dropped int) {
	q.mu.Lock()
	for len(q.pending)+q.writing > waitSize && !q.closed && !q.slow {
		if !q.timing {
			q.timing = true
			q.timer.Reset(patience)
		}
		q.progress.Wait()
	}
	dropped = q.pushLocked(m)
	q.mu.Unlock()
	q.wake()
	return dropped
}

func (q *Queue) pushLocked(m *udp.Message) (dropped int) {
	for d := range m.Segments() {
		if q.closed || len(q.pending)+maxHeader+len(d) > queueSize {
			dropped++
			continue
		}
		q.pending = AppendDatagram(q.pending, d)
	}
	return dropped
}

// giveUp ends the waiting of PushWait until something is written.
func (q *Queue) giveUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.timing {
		q.timing, q.slow = false, true
		q.progress.Broadcast()
	}
}

func (q *Queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Run writes the queue until it is closed, or writing fails because the other end has closed the
// connection or does not read. Then it closes the queue. It may be called once.
func (q *Queue) Run() {
	defer close(q.done)
	defer q.empty()
	defer q.shut()
	for {
		b, ok := q.take()
		if !ok {
			return
		}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), batchSize)
			if err := q.write(rest[:n]); err != nil {
				_ = abort(q.conn)
				return
			}
			rest = rest[n:]
			q.written(len(rest))
		}
		q.recycle(b)
	}
}

// write writes capsules, with one system call.
func (q *Queue) write(b []byte) error {
	_ = q.tcp.SetWriteDeadline(time.Now().Add(stall))
	q.tcp.Hold()
	_, err := q.conn.Write(b)
	return errors.Join(err, q.tcp.Release())
}

// written takes note that something has been written, and how much is still to be.
func (q *Queue) written(rest int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing, q.slow = rest, false
	if q.timing {
		q.timing = false
		q.timer.Stop()
	}
	q.progress.Broadcast()
}

// take waits until there is something to write, and returns it. It returns false when the queue
// is closed and empty.
func (q *Queue) take() ([]byte, bool) {
	gathered := false
	for {
		q.mu.Lock()
		n := len(q.pending)
		if n > 0 && (gathered || n >= writeSize) {
			b := q.pending
			q.pending, q.spare, q.writing = q.spare, nil, n
			q.mu.Unlock()
			return b, true
		}
		closed, buffers := q.closed, cap(q.pending)+cap(q.spare) > 0
		q.mu.Unlock()
		switch {
		case n > 0:
			// Goroutines that can run may have more to send, which costs no further
			// record and system call.
			runtime.Gosched()
			gathered = true
		case closed:
			return nil, false
		default:
			q.wait(buffers)
		}
	}
}

// wait waits until there may be something to write. If the queue has buffers, it forgets them
// after idleTime.
func (q *Queue) wait(buffers bool) {
	if !buffers {
		<-q.ready
		return
	}
	q.idle.Reset(idleTime)
	defer q.idle.Stop()
	select {
	case <-q.ready:
	case <-q.idle.C:
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.pending) == 0 {
			q.pending, q.spare = nil, nil
			q.tcp.forget()
		}
	}
}

// recycle keeps a buffer that has been written.
func (q *Queue) recycle(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = b[:0]
}

func (q *Queue) shut() {
	q.mu.Lock()
	q.closed = true
	q.progress.Broadcast()
	q.mu.Unlock()
	q.wake()
}

// empty forgets what has not been written.
func (q *Queue) empty() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending, q.spare = nil, nil
}

// Close drops further datagrams, writes those in the queue, for a second at most, and closes the
// connection. Run must have been called. Close may be called more than once.
func (q *Queue) Close() error {
	q.shut()
	timer := time.NewTimer(lastWrites)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
	err := abort(q.conn)
	<-q.done
	return err
}

// abort closes a connection. It does not wait until TLS has said so to the other end, which may
// not read.
func abort(conn net.Conn) error {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	return conn.Close()
}
