package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// groupBatch is how many messages the loop of a group reads before it calls the
	// handler, and memberBatch how many of them from one member.
	groupBatch, memberBatch = 128, 32
	// memberBuffer is the size of a member's receive buffer, in bytes. The kernel may
	// grant less.
	memberBuffer = 2 << 20
)

// epollGroup waits for all members by epoll(7), and Go's poller waits for the epoll file.
type epollGroup struct {
	group  *Group
	kernel *kernelEngine // for writing, and the counters; not of one socket
	file   *os.File      // the epoll file
	raw    syscall.RawConn
	fd     int // of file; used only while mu is held and the group is open

	mu      sync.Mutex // guards the following, and group.closed
	members []place
	free    []int32 // indices of places without a member
}

// place is where a member is in a group. Its number changes with the member, so that an
// event about the member before is not taken for one about the member.
type place struct {
	member *epollMember
	number int32
}

// epollMember is a socket of an epollGroup.
type epollMember struct {
	*Member
	in    *epollGroup
	fd    int
	index int32 // of its place
	state atomic.Int64
}

// States of an epollMember: the number of calls that use the file descriptor, and flags. The
// descriptor is closed when no call uses it any more: another socket may get its number.
const (
	memberClosed   int64 = 1 << 62
	memberReleased int64 = 1 << 61
)

var (
	_ groupEngine  = (*epollGroup)(nil)
	_ memberSocket = (*epollMember)(nil)
)

func newGroupEngine(g *Group) (groupEngine, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that Go's poller takes it
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	kernel := &kernelEngine{socket: &Socket{gro: true}}
	kernel.socket.gso.Store(true)
	return &epollGroup{group: g, kernel: kernel, file: file, raw: raw, fd: fd}, nil
}

func (g *epollGroup) dial(remote netip.AddrPort, owner any) (*Member, error) {
	fd, err := connected(remote)
	if err != nil {
		return nil, err
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("getsockname", err), unix.Close(fd))
	}
	m := &epollMember{Member: &Member{group: g.group, owner: owner, remote: remote, local: fromSockaddr(local)}, in: g, fd: fd}
	m.socket = m
	if err := g.add(m); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return m.Member, nil
}

// connected opens a UDP socket that is connected to an address.
func connected(remote netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(remote.Port()), Addr: remote.Addr().As16(), ZoneId: scopeOf(remote.Addr())}
	if remote.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	setMemberOptions(fd, family == unix.AF_INET6)
	if err := unix.Connect(fd, to); err != nil {
		return 0, errors.Join(fmt.Errorf("%v: %w", remote, os.NewSyscallError("connect", err)), unix.Close(fd))
	}
	return fd, nil
}

// setMemberOptions is like kernelEngine.setup for a connected socket of one IP version.
// Errors are ignored: without an option something is not known, or slower.
func setMemberOptions(fd int, v6 bool) {
	options := []struct{ level, name, value int }{
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_UDP, unix.UDP_GRO, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, memberBuffer},
	}
	if v6 {
		options[0] = struct{ level, name, value int }{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1}
		options[1] = struct{ level, name, value int }{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1}
		options[2] = struct{ level, name, value int }{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE}
	}
	for _, o := range options {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(withScope(netip.AddrFrom16(sa.Addr), sa.ZoneId), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// add gives a member a place, and begins to wait for it.
func (g *epollGroup) add(m *epollMember) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fd < 0 {
		return net.ErrClosed
	}
	if len(g.free) == 0 {
		g.free = append(g.free, int32(len(g.members)))
		g.members = append(g.members, place{})
	}
	m.index = g.free[len(g.free)-1]
	p := &g.members[m.index]
	p.number++
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: m.index, Pad: p.number}
	if err := unix.EpollCtl(g.fd, unix.EPOLL_CTL_ADD, m.fd, &event); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	g.free = g.free[:len(g.free)-1]
	p.member = m
	return nil
}

// atLocked returns the member that an event is about, or nil if it has been closed.
func (g *epollGroup) atLocked(e *unix.EpollEvent) *epollMember {
	if p := &g.members[e.Fd]; p.number == e.Pad {
		return p.member
	}
	return nil
}

func (g *epollGroup) close() error {
	g.mu.Lock()
	g.fd = -1
	var all []*epollMember
	for _, p := range g.members {
		if p.member != nil {
			all = append(all, p.member)
		}
	}
	g.mu.Unlock()
	for _, m := range all {
		m.close(m.Member)
	}
	return g.file.Close()
}

// ended returns the error of the loop: net.ErrClosed if the group is closed.
func (g *epollGroup) ended(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fd < 0 {
		return net.ErrClosed
	}
	return err
}

// use keeps the file descriptor open until done is called. It reports false if the member
// is closed.
func (m *epollMember) use() bool {
	if m.state.Add(1) >= memberReleased {
		m.done()
		return false
	}
	return true
}

func (m *epollMember) done() { m.release(m.state.Add(-1)) }

// release closes the file descriptor of a closed member that no call uses any more.
func (m *epollMember) release(state int64) {
	if state == memberClosed && m.state.CompareAndSwap(memberClosed, memberClosed|memberReleased) {
		_ = unix.Close(m.fd) // which also ends the waiting for it
	}
}

func (m *epollMember) close(*Member) {
	g := m.in
	g.mu.Lock()
	p := &g.members[m.index]
	if p.member != m {
		g.mu.Unlock()
		return
	}
	p.member = nil
	g.free = append(g.free, m.index)
	g.mu.Unlock()
	m.release(m.state.Add(memberClosed))
}

// errFull says that the system's buffer had no room.
var errFull = errors.New("send buffer is full")

func (m *epollMember) write(_ *Member, ms []Message) error {
	if !m.use() {
		return net.ErrClosed
	}
	defer m.done()
	kernel := m.in.kernel
	kernel.socket.stats.txBatches.Add(1)
	return kernel.writeTo(memberConn{m}, false, ms)
}

// memberConn is the syscall.RawConn of a member for a sender.
type memberConn struct{ *epollMember }

// Write calls f once: a member does not wait for room in the system's buffer.
func (c memberConn) Write(f func(fd uintptr) bool) error {
	if f(uintptr(c.fd)) {
		return nil
	}
	return errFull
}

func (c memberConn) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (c memberConn) Control(func(fd uintptr)) error { return errors.ErrUnsupported }

func (g *epollGroup) counters() *counters { return &g.kernel.socket.stats }
