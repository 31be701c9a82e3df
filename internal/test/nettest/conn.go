package nettest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queueLen is the number of unread packets that a conn holds, like the receive buffer
// of a socket. It drops further ones.
const queueLen = 4096

// Conn is a net.PacketConn on a [Network], or on all networks of a [Node].
type Conn struct {
	local  netip.AddrPort
	public netip.AddrPort // guarded by its network's mu

	// source returns the network and the source address of packets to an address.
	// For the zero Addr it returns the default ones.
	source func(to netip.Addr) (*Network, netip.AddrPort, bool)
	detach func()

	queue  chan Packet
	closed chan struct{}
	close  sync.Once

	unreachable atomic.Bool
	mtu         atomic.Int64

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed and replaced when deadline changes
}

var _ net.PacketConn = (*Conn)(nil)

func newConn(addr netip.AddrPort) *Conn {
	return &Conn{
		local:   addr,
		public:  addr,
		queue:   make(chan Packet, queueLen),
		closed:  make(chan struct{}),
		changed: make(chan struct{}),
	}
}

// Unreachable makes all writes fail with [ErrUnreachable], or succeed again.
func (c *Conn) Unreachable(yes bool) { c.unreachable.Store(yes) }

// SetMTU makes writes of more than n bytes fail with EMSGSIZE, as those to an interface
// with a small MTU do. 0 means no limit.
func (c *Conn) SetMTU(n int) { c.mtu.Store(int64(n)) }

// Public returns the address that others on the network see. For a conn of a node, it
// is the one on the network of the default route.
func (c *Conn) Public() netip.AddrPort {
	_, from, _ := c.source(netip.Addr{})
	return from
}

func (c *Conn) receive(p Packet) {
	select {
	case c.queue <- p:
	default: // the queue is full
	}
}

// ReadFrom implements [net.PacketConn].
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		c.mu.Unlock()
		timeout, stop := timer(deadline)
		select {
		case <-c.closed:
			stop()
			return 0, nil, net.ErrClosed
		case <-timeout:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
			stop()
		case p := <-c.queue:
			stop()
			return copy(b, p.Data), UDPAddr(p.From), nil
		}
	}
}

// timer returns a channel that is readable from t on, and a function that releases it.
func timer(t time.Time) (<-chan time.Time, func()) {
	if t.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(t))
	return timer.C, func() { timer.Stop() }
}

// WriteTo implements [net.PacketConn].
func (c *Conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	to := addr.(*net.UDPAddr).AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	network, from, ok := c.source(to.Addr())
	if !ok || c.unreachable.Load() {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: ErrUnreachable}
	}
	if mtu := c.mtu.Load(); mtu > 0 && int64(len(b)) > mtu {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: syscall.EMSGSIZE}
	}
	network.send(Packet{From: from, To: to, Data: slices.Clone(b)})
	return len(b), nil
}

// Close implements [net.PacketConn].
func (c *Conn) Close() error {
	c.close.Do(func() {
		c.detach()
		close(c.closed)
	})
	return nil
}

// LocalAddr implements [net.PacketConn].
func (c *Conn) LocalAddr() net.Addr { return UDPAddr(c.local) }

// SetDeadline implements [net.PacketConn]. Writes never block.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// SetWriteDeadline implements [net.PacketConn].
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer does nothing. quic-go calls it.
func (c *Conn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing. quic-go calls it.
func (c *Conn) SetWriteBuffer(int) error { return nil }
