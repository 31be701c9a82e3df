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
	// defaultQueue is how many packets wait for a reader.
	defaultQueue = 2048
	// maxQueued is the largest packet that QUIC reads (quic-go takes 1452
	// bytes), with room to spare.
	maxQueued = 2048
)

// Conn is a virtual net.PacketConn, for one quic.Transport. quic-go takes it
// for a UDP socket with batches, ECN and GSO if the socket that it stands on is
// one, and for a plain conn if not.
type Conn interface {
	net.PacketConn
	// Deliver queues the datagrams of a message, which it copies, and
	// returns how many it dropped because the reader is behind. It never
	// blocks and may be called concurrently.
	Deliver(m *Message) (dropped int)
}

// VirtualConfig configures a [Conn].
type VirtualConfig struct {
	// Socket is what the conn passes itself off as.
	Socket *Socket
	// Send gets what is written. It must not keep the message. Of what it
	// returns QUIC hears what [ForQUIC] says.
	Send func(m *Message) error
	// Queue is how many packets may wait to be read. 0 means 2048.
	Queue int
}

// NewVirtual returns a Conn.
func NewVirtual(cfg *VirtualConfig) (Conn, error) {
	if cfg.Socket == nil || cfg.Send == nil {
		return nil, errors.New("virtual conn needs a socket and somewhere to send to")
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
	return wrapVirtual(v, cfg.Socket)
}

// queued is a packet that waits to be read.
type queued struct {
	buf    *[maxQueued]byte
	n      int
	remote netip.AddrPort
	local  netip.Addr
	ecn    byte
}

// buffers are those of packets that wait. They are many only while many wait.
var buffers = sync.Pool{New: func() any { return new([maxQueued]byte) }}

// virtual is the part of a Conn that is the same for both kinds.
type virtual struct {
	send   func(m *Message) error
	local  net.Addr
	max    int
	ready  chan struct{} // holds a token when the queue may not be empty
	closed chan struct{}
	once   sync.Once

	// The address of the last packet that was read, in the form that
	// readers want: most packets come from where the last one came from.
	// For the reader alone.
	from     netip.AddrPort
	fromAddr *net.UDPAddr

	mu       sync.Mutex // guards the following
	queue    []queued   // a ring
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

// growLocked makes the ring longer, as far as it may.
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

// pop waits for packets and calls f with as many as there are, at most n. The
// memory of a packet is f's until it returns.
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

// shiftLocked takes the oldest packet. It is valid until the next.
func (v *virtual) shiftLocked() *queued {
	q := &v.queue[v.head]
	v.head = (v.head + 1) % len(v.queue)
	v.len--
	return q
}

// release gives the memory of a packet back.
func (q *queued) release() {
	buffers.Put(q.buf)
	q.buf = nil
}

// wait waits until there may be a packet.
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

// addrOf returns the net.Addr of a packet. It is never changed.
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

// SetDeadline implements [net.PacketConn]. Writes never wait.
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

// SetWriteDeadline implements [net.PacketConn].
func (v *virtual) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer does nothing: the socket below has its buffer.
func (v *virtual) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing: the socket below has its buffer.
func (v *virtual) SetWriteBuffer(int) error { return nil }

// ForQUIC returns err if QUIC is to hear of it: EMSGSIZE, which path MTU discovery
// needs ([IsMessageTooLong]). quic-go ends a connection at any other, but a host that
// has no route just now, or may not send, will be able to again. Whoever sends
// counts what is not told.
func ForQUIC(err error) error {
	if err != nil && IsMessageTooLong(err) {
		return err
	}
	return nil
}
