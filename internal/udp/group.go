package udp

import (
	"net/netip"
	"sync"
)

// Group is a set of connected UDP sockets, its members, that one loop reads. On Linux a member
// that waits has no buffer and no goroutine: the loop waits for all of them by epoll(7). On other
// systems each member has a goroutine with a buffer of 9 KiB.
//
// [Group.Dial] and the methods of members may be called concurrently.
type Group struct {
	engine groupEngine

	mu     sync.Mutex // guards the following
	closed bool
}

// groupEngine reads members: all by one loop, or each on its own goroutine.
type groupEngine interface {
	dial(remote netip.AddrPort, owner any) (*Member, error)
	// run calls handle, never concurrently, until close is called. It returns
	// net.ErrClosed then.
	run(handle func([]Received)) error
	// close also closes all members.
	close() error
	counters() *counters
}

// Received is what a [Group] has read from one of its members: a message, or an error.
type Received struct {
	// Member is the member, and Owner what was given to [Group.Dial].
	Member *Member
	Owner  any
	// Message is valid until the handler returns.
	Message Message
	// Err is the error of the socket, such as ECONNREFUSED after an ICMP message. There
	// is no Message then.
	Err error
}

// Member is one of the sockets of a [Group].
type Member struct {
	group         *Group
	owner         any
	local, remote netip.AddrPort
	socket        memberSocket
}

// memberSocket is the part of a member that depends on the engine.
type memberSocket interface {
	write(m *Member, ms []Message) error
	close(m *Member)
}

// NewGroup makes a Group without members.
func NewGroup() (*Group, error) {
	g := &Group{}
	engine, err := newGroupEngine(g)
	if err != nil {
		return nil, err
	}
	g.engine = engine
	return g, nil
}

// Dial opens a socket that is connected to an address, and adds it to the group. owner is
// given to the handler of [Group.Run] with what the socket receives. An error comes from the
// system, or is net.ErrClosed.
func (g *Group) Dial(remote netip.AddrPort, owner any) (*Member, error) {
	return g.engine.dial(remote, owner)
}

// Run reads the members until the group is closed, and gives handle what they receive, in
// batches. Calls of handle are never concurrent. It may be called once. It returns
// net.ErrClosed after [Group.Close], and another error if the system fails.
func (g *Group) Run(handle func([]Received)) error { return g.engine.run(handle) }

// Close closes the group and its members. It does not wait for [Group.Run]. It may be called
// more than once.
func (g *Group) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	return g.engine.close()
}

// Stats returns the counters of all members together.
func (g *Group) Stats() Stats { return g.engine.counters().load() }

// LocalAddr returns the local address of the socket.
func (m *Member) LocalAddr() netip.AddrPort { return m.local }

// RemoteAddr returns the address that the socket is connected to.
func (m *Member) RemoteAddr() netip.AddrPort { return m.remote }

// WriteBatch sends messages to the remote address, and sets their Remote to it. It does not
// block: messages beyond the system's buffer are lost. It skips and counts messages that the
// system refuses, and returns the error of the last one. An error may also be about a message
// that was sent before, such as ECONNREFUSED after an ICMP message.
func (m *Member) WriteBatch(ms []Message) error {
	for i := range ms {
		ms[i].Remote = m.remote // whose IP version decides how the ECN mark is sent
	}
	return m.socket.write(m, ms)
}

// Close closes the socket. It may be called more than once. The handler may still get what
// was received before.
func (m *Member) Close() { m.socket.close(m) }
