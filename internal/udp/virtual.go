package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// defaultQueue is the default of VirtualConfig.Queue.
	defaultQueue = 2048
	// keptQueue is how long a queue may have become to be kept while it is empty.
	keptQueue = 1024
	// maxQueued is the largest packet that can be queued. quic-go reads at most
	// 1452 bytes.
	maxQueued = 2048
)

// Conn is a virtual net.PacketConn for one quic.Transport. quic-go uses batches, ECN and GSO
// with it if the underlying socket supports them.
type Conn interface {
	net.PacketConn
	// Deliver copies the datagrams of a message into the queue of packets to read,
	// and returns how many it has dropped because the queue is full. It never
	// blocks, and may be called concurrently.
	Deliver(m *Message) (dropped int)
}

// VirtualConfig configures a [Conn].
type VirtualConfig struct {
	// Socket is the underlying socket. The Conn has its address and capabilities, but
	// does not read or write it.
	Socket *Socket
	// Send is called with each message that the transport writes. It must not keep the
	// message. The transport gets its error as [ForQUIC] returns it.
	Send func(m *Message) error
	// Queue is how many packets can be queued until they are read. 0 means 2048.
	Queue int
}

// NewVirtual makes a Conn. Socket and Send must be set.
func NewVirtual(cfg *VirtualConfig) (Conn, error) {
	if cfg.Socket == nil || cfg.Send == nil {
		return nil, errors.New("virtual conn: Socket or Send is missing")
	}
	v := &virtual{
		send:    cfg.Send,
		local:   cfg.Socket.conn.LocalAddr(),
		ready:   make(chan struct{}, 1),
		closed:  make(chan struct{}),
		changed: make(chan struct{}),
		max:     cfg.Queue,
	}
	if v.max == 0 {
		v.max = defaultQueue
	}
	return wrapVirtual(v, cfg.Socket), nil
}

// queued is a packet in the queue.
type queued struct {
	buf    *[maxQueued]byte
	n      int
	remote netip.AddrPort
	local  netip.Addr
	ecn    byte
}

// buffers has the buffers of queued packets.
var buffers = sync.Pool{New: func() any { return new([maxQueued]byte) }}

// virtual is a Conn without out-of-band data. oobVirtual adds that.
type virtual struct {
	send   func(m *Message) error
	local  net.Addr
	max    int
	ready  chan struct{} // holds a token when there may be packets in the queue
	closed chan struct{}
	once   sync.Once

	// The source of the last packet that was read, as a netip.AddrPort and as a
	// net.Addr. Most packets come from the same address as the last one. Used only
	// by the reader.
	from     netip.AddrPort
	fromAddr *net.UDPAddr

	mu       sync.Mutex // guards the following
	queue    []queued   // a ring buffer
	head     int
	len      int
	deadline time.Time
	changed  chan struct{} // closed and replaced when the deadline changes
}

// Deliver implements [Conn].
func (v *virtual) Deliver(m *Message) (dropped int) {
	v.mu.Lock()
	for data := range m.Segments() {
		if len(data) > maxQueued || !v.pushLocked(m, data) {
			dropped++
		}
	}
	v.mu.Unlock()
	select {
	case v.ready <- struct{}{}:
	default:
	}
	return dropped
}

func (v *virtual) pushLocked(m *Message, data []byte) bool {
	if v.len == len(v.queue) && !v.growLocked() {
		return false
	}
	q := queued{buf: buffers.Get().(*[maxQueued]byte), n: len(data), remote: m.Remote, local: m.Local, ecn: m.ECN}
	copy(q.buf[:], data)
	v.queue[(v.head+v.len)%len(v.queue)] = q
	v.len++
	return true
}

// growLocked makes the ring buffer larger. It returns false if the queue is full.
func (v *virtual) growLocked() bool {
	if v.len >= v.max {
		return false
	}
	longer := make([]queued, min(max(2*len(v.queue), 16), v.max))
	for i := range v.len {
		longer[i] = v.queue[(v.head+i)%len(v.queue)]
	}
	v.queue, v.head = longer, 0
	return true
}

// pop waits until there is a packet, and calls f for each packet in the queue, at most n. It
// returns how many. f must not keep the packet.
func (v *virtual) pop(n int, f func(i int, q *queued)) (int, error) {
	for {
		v.mu.Lock()
		select {
		case <-v.closed:
			v.mu.Unlock()
			return 0, net.ErrClosed
		default:
		}
		if v.len > 0 {
			n = min(n, v.len)
			for i := range n {
				f(i, v.shiftLocked())
			}
			if v.len == 0 && len(v.queue) > keptQueue {
				v.queue, v.head = nil, 0 // there was a burst
			}
			v.mu.Unlock()
			return n, nil
		}
		deadline, changed := v.deadline, v.changed
		v.mu.Unlock()
		if err := v.wait(deadline, changed); err != nil {
			return 0, err
		}
	}
}

// shiftLocked removes the oldest packet. It is valid until the next packet is queued.
func (v *virtual) shiftLocked() *queued {
	q := &v.queue[v.head]
	v.head = (v.head + 1) % len(v.queue)
	v.len--
	return q
}

// release returns the buffer of a packet to the pool.
func (q *queued) release() {
	buffers.Put(q.buf)
	q.buf = nil
}

// wait waits until there may be a packet, or the deadline has changed or passed.
func (v *virtual) wait(deadline time.Time, changed <-chan struct{}) error {
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-v.ready:
	case <-changed:
	case <-v.closed:
	case <-timeout:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// addrOf returns an address as a net.Addr, which must not be changed.
func (v *virtual) addrOf(remote netip.AddrPort) *net.UDPAddr {
	if v.fromAddr == nil || v.from != remote {
		v.from, v.fromAddr = remote, net.UDPAddrFromAddrPort(remote)
	}
	return v.fromAddr
}

// ReadFrom implements [net.PacketConn].
func (v *virtual) ReadFrom(b []byte) (n int, addr net.Addr, err error) {
	_, err = v.pop(1, func(_ int, q *queued) {
		n, addr = copy(b, q.buf[:q.n]), v.addrOf(q.remote)
		q.release()
	})
	return n, addr, err
}

// WriteTo implements [net.PacketConn].
func (v *virtual) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a UDP address")
	}
	return len(b), v.write(&Message{Data: b, Remote: unmap(udp.AddrPort())})
}

func (v *virtual) write(m *Message) error {
	select {
	case <-v.closed:
		return net.ErrClosed
	default:
		return ForQUIC(v.send(m))
	}
}

// Close implements [net.PacketConn].
func (v *virtual) Close() error {
	v.once.Do(func() { close(v.closed) })
	return nil
}

// LocalAddr implements [net.PacketConn].
func (v *virtual) LocalAddr() net.Addr { return v.local }

// SetDeadline implements [net.PacketConn]. It only concerns reads: writes never block.
func (v *virtual) SetDeadline(t time.Time) error { return v.SetReadDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (v *virtual) SetReadDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deadline = t
	close(v.changed)
	v.changed = make(chan struct{})
	return nil
}

// SetWriteDeadline implements [net.PacketConn]. It does nothing: writes never block.
func (v *virtual) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer does nothing: the underlying socket has the buffer.
func (v *virtual) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing: the underlying socket has the buffer.
func (v *virtual) SetWriteBuffer(int) error { return nil }

// ForQUIC returns the error of a write as quic-go should get it. It returns EMSGSIZE, which
// path MTU discovery needs (see [IsMessageTooLong]), and nil for other errors: quic-go would
// close the connection, but the cause, such as a missing route, may soon be gone. The sender
// has to count those errors itself.
func ForQUIC(err error) error {
	if err != nil && IsMessageTooLong(err) {
		return err
	}
	return nil
}
