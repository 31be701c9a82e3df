package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// plainBuffer is the size of the buffer of a member, in bytes: a jumbo frame fits.
const plainBuffer = 9 << 10

// plainGroup reads each member on a goroutine of its own, one packet after the other.
type plainGroup struct {
	group    *Group
	stats    counters
	closed   chan struct{}
	ready    chan struct{} // closed when handle is set
	handling sync.Mutex    // held during calls of handle

	mu      sync.Mutex // guards the following
	handle  func([]Received)
	ended   bool
	members map[*plainMember]struct{}
	reading sync.WaitGroup // the goroutines
}

// plainMember is a socket of a plainGroup.
type plainMember struct {
	*Member
	in   *plainGroup
	conn *net.UDPConn
}

var (
	_ groupEngine  = (*plainGroup)(nil)
	_ memberSocket = (*plainMember)(nil)
)

func newPlainGroup(g *Group) *plainGroup {
	return &plainGroup{
		group: g, closed: make(chan struct{}), ready: make(chan struct{}), members: make(map[*plainMember]struct{}),
	}
}

func (g *plainGroup) dial(remote netip.AddrPort, owner any) (*Member, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(remote))
	if err != nil {
		return nil, err
	}
	m := &plainMember{
		Member: &Member{group: g.group, owner: owner, remote: remote, local: AddrPort(conn.LocalAddr())}, in: g, conn: conn,
	}
	m.socket = m
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	g.members[m] = struct{}{}
	g.reading.Go(func() { g.read(m) })
	return m.Member, nil
}

func (g *plainGroup) run(handle func([]Received)) error {
	g.start(handle)
	<-g.closed
	g.reading.Wait()
	return net.ErrClosed
}

// start sets the handler, once.
func (g *plainGroup) start(handle func([]Received)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.handle == nil {
		g.handle = handle
		close(g.ready)
	}
}

func (g *plainGroup) counters() *counters { return &g.stats }

// read reads a member until it is closed.
func (g *plainGroup) read(m *plainMember) {
	buf := make([]byte, plainBuffer)
	one := make([]Received, 1)
	for {
		n, err := m.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		one[0] = Received{Member: m.Member, Owner: m.owner, Err: err}
		if err == nil {
			one[0].Message = Message{Data: buf[:n], Remote: m.remote, Local: m.local.Addr()}
			g.stats.rxPackets.Add(1)
			g.stats.rxBytes.Add(uint64(n))
			g.stats.rxBatches.Add(1)
		} else {
			g.stats.rxErrors.Add(1)
		}
		if !g.deliver(one) {
			return
		}
	}
}

// deliver gives the handler what was read. It waits until there is one. It reports false if
// the group is closed.
func (g *plainGroup) deliver(one []Received) bool {
	<-g.ready
	g.handling.Lock()
	defer g.handling.Unlock()
	select {
	case <-g.closed:
		return false
	default:
	}
	g.handle(one)
	return true
}

func (g *plainGroup) close() error {
	g.mu.Lock()
	g.ended = true
	var all []*plainMember
	for m := range g.members {
		all = append(all, m)
	}
	g.mu.Unlock()
	close(g.closed)
	g.start(func([]Received) {}) // if run has not been called
	for _, m := range all {
		m.close(m.Member)
	}
	return nil
}

func (m *plainMember) close(*Member) {
	g := m.in
	g.mu.Lock()
	delete(g.members, m)
	g.mu.Unlock()
	_ = m.conn.Close() // it may have been closed
}

func (m *plainMember) write(_ *Member, ms []Message) error {
	var last error
	stats := &m.in.stats
	stats.txBatches.Add(1)
	for i := range ms {
		for segment := range ms[i].Segments() {
			if _, err := m.conn.Write(segment); err != nil {
				if errors.Is(err, net.ErrClosed) {
					return err
				}
				stats.txErrors.Add(1)
				last = err
				continue
			}
			stats.txPackets.Add(1)
			stats.txBytes.Add(uint64(len(segment)))
		}
	}
	return last
}
