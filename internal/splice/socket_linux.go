package splice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// tupleOf returns the addresses of a connection.
func tupleOf(c *net.TCPConn) tuple {
	return tuple{remote: plain(c.RemoteAddr()), local: plain(c.LocalAddr())}
}

// plain returns an address of which IPv4 is not mapped into IPv6.
func plain(a net.Addr) netip.AddrPort {
	addr, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := addr.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// control calls f with the descriptor of a connection, and returns its error. It returns an error
// that wraps net.ErrClosed if the connection is closed.
func control(c *net.TCPConn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// The values of TCP_REPAIR and TCP_REPAIR_QUEUE, as in include/uapi/linux/tcp.h.
const (
	repairOff         = 0
	repairOn          = 1
	repairOffNoProbe  = -1
	repairReceive     = 1
	repairSend        = 2
	optionMSS         = 2
	optionWindow      = 3
	optionSACK        = 4
	optionTimestamp   = 8
	maxMSS            = 32767 // the most that TCP_MAXSEG takes
	initialWindow     = 65535
	repairWindowBytes = 20
)

// established is the state TCP_ESTABLISHED, as in include/net/tcp_states.h.
const established = 1

// freeze stops a socket from sending. If the process ends, or the socket is closed, the peer does
// not hear of it.
func freeze(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn); err != nil {
		return fmt.Errorf("freeze socket: %w", err)
	}
	return nil
}

// tryFreeze returns an error if the process may not freeze sockets.
func tryFreeze() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	return errors.Join(freeze(fd), unix.Close(fd))
}

// askWindow has the peer of a socket tell its window.
func askWindow(fd int) error { return thaw(fd, repairOff) } // asks also if the socket is not frozen

// discard gives up the addresses of a frozen socket. Goroutines that wait for the socket return
// with an error.
func discard(fd int) error {
	var unspecified [16]byte // struct sockaddr of AF_UNSPEC
	if err := connectRaw(fd, unspecified[:]); err != nil {
		return fmt.Errorf("disconnect socket: %w", err)
	}
	return nil
}

// clock returns the timestamp that a socket would send now.
func clock(fd int) (uint32, error) {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	return uint32(v), err
}

// setClock sets the timestamp that a frozen socket would send now.
func setClock(fd int, now uint32) error {
	// The lowest bit is not part of the clock: it asks for microseconds.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(int32((now+1)&^1))); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

// leg is the state of a connection from which a socket can be made that continues it.
type leg struct {
	tuple
	settings           settings
	sndNxt, rcvNxt     uint32 // the next byte to the peer, and the next byte from the peer
	window             uint32 // of the peer, in bytes
	ownWindow          uint32 // that the peer may use, in bytes
	shut               bool   // the peer has last heard of a window that is shut
	sndScale, rcvScale uint8  // of the windows
	mss                uint16 // largest segment that the peer takes, without options
	timestamps, sack   bool
	timestamp          uint32 // not before those that the peer has seen
}

// reserve makes a frozen socket that is bound to the local address, also if another socket of the
// connection is. As long as it exists, the system gives the port to nobody else that it chooses a
// port for. The caller closes it. The calling thread has to be in the network namespace of the
// connection.
func (l *leg) reserve() (fd int, err error) {
	family := unix.AF_INET
	if l.local.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := l.do(fd, freeze, l.bind); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// restore makes a reserved socket one that is connected, if no other socket of the connection
// exists. It sends no packet. The socket is still frozen.
func (l *leg) restore(fd int) error { return l.do(fd, l.number, l.connect, l.negotiated, l.setWindows) }

func (l *leg) do(fd int, steps ...func(int) error) error {
	for _, step := range steps {
		if err := step(fd); err != nil {
			return fmt.Errorf("restore %v to %v: %w", l.local, l.remote, err)
		}
	}
	return nil
}

// number sets what has to be known before a frozen socket is connected.
func (l *leg) number(fd int) error {
	for _, o := range [][2]int{
		// Without TCP_MAXSEG the socket sends segments of 536 bytes for ever, since it
		// never hears what its peer takes.
		{unix.TCP_MAXSEG, int(min(l.mss, maxMSS))},
		{unix.TCP_REPAIR_QUEUE, repairSend}, {unix.TCP_QUEUE_SEQ, int(int32(l.sndNxt))},
		{unix.TCP_REPAIR_QUEUE, repairReceive}, {unix.TCP_QUEUE_SEQ, int(int32(l.rcvNxt - l.spare()))},
	} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o[0], o[1]); err != nil {
			return fmt.Errorf("set option %d to %d: %w", o[0], o[1], err)
		}
	}
	return nil
}

// bind sets the options of a socket and binds it.
func (l *leg) bind(fd int) error {
	if err := l.settings.apply(fd, l.local.Addr()); err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(l.local)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

func (l *leg) connect(fd int) error {
	if err := unix.Connect(fd, sockaddr(l.remote)); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// negotiated sets what the ends have agreed on when they connected.
func (l *leg) negotiated(fd int) error {
	var options []byte // struct tcp_repair_opt
	add := func(code, value uint32) {
		options = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(options, code), value)
	}
	add(optionMSS, uint32(l.mss))
	if l.sndScale != 0 || l.rcvScale != 0 {
		add(optionWindow, uint32(l.sndScale)|uint32(l.rcvScale)<<16)
	}
	if l.sack {
		add(optionSACK, 0)
	}
	if l.timestamps {
		add(optionTimestamp, 0)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(options)); err != nil {
		return fmt.Errorf("set what was negotiated: %w", err)
	}
	if l.timestamps {
		return setClock(fd, l.timestamp)
	}
	return nil
}

// setWindows sets the windows of both ends. If that of the peer is shut, it puts a byte into the queue of
// what was received, which resume reads.
func (l *leg) setWindows(fd int) error {
	own := min(max(l.ownWindow, initialWindow), initialWindow<<l.rcvScale)
	if err := makeRoom(fd, own); err != nil {
		return err
	}
	if l.shut {
		own = 0
		if _, err := unix.Write(fd, make([]byte, l.spare())); err != nil {
			return fmt.Errorf("put a byte into the queue: %w", err)
		}
	}
	window := make([]byte, 0, repairWindowBytes) // struct tcp_repair_window
	for _, v := range []uint32{l.rcvNxt, l.window, max(l.window, initialWindow), own, l.rcvNxt} {
		window = binary.NativeEndian.AppendUint32(window, v)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, string(window)); err != nil {
		return fmt.Errorf("set windows: %w", err)
	}
	return nil
}

// spare is the number of bytes that resume reads. They came before.
func (l *leg) spare() uint32 {
	if l.shut {
		return 1
	}
	return 0
}

// makeRoom makes the receive buffer of a socket large enough for a window, up to half of
// net.ipv4.tcp_rmem. SO_RCVLOWAT enlarges the buffer as it is needed, and lets the kernel go on to
// do so, unlike SO_RCVBUF.
func makeRoom(fd int, window uint32) error {
	for _, lowest := range []int{int(window), 1} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, lowest); err != nil {
			return fmt.Errorf("make room for a window of %d bytes: %w", window, err)
		}
	}
	return nil
}

// thaw lets a frozen socket send again. how is repairOff, to begin with a packet that asks for the peer's
// window, or repairOffNoProbe.
func thaw(fd, how int) error {
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_REPAIR, how},
		// TCP_REPAIR clears it. Without it nobody can listen on the port as long as the
		// socket exists.
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("thaw socket: %w", err)
		}
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// connOf returns the connection of a frozen socket, and takes over the descriptor. The connection has
// options that package net has set.
func connOf(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if err := control(c.(*net.TCPConn), silence); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// resume lets the frozen socket of a leg go on, with the options of the socket whose place it takes.
func (l *leg) resume(c *net.TCPConn) error {
	return control(c, func(fd int) error {
		return errors.Join(l.settings.apply(fd, l.local.Addr()), l.open(fd), setProbes(fd, l.settings.Probes))
	})
}

// open thaws a socket, and tells its peer of the window if that is shut: otherwise the peer asks when its
// timer of 200 ms or more has run out. Nothing but reading makes a socket do so, and only if it has not
// told the window in another packet before.
func (l *leg) open(fd int) error {
	if !l.shut {
		return thaw(fd, repairOff)
	}
	if err := thaw(fd, repairOffNoProbe); err != nil {
		return err
	}
	if _, err := unix.Read(fd, make([]byte, l.spare())); err != nil {
		return fmt.Errorf("read the spare byte: %w", err)
	}
	return nil
}

// reject makes a reserved socket send the peer a reset, and closes it. It does nothing to sockets that
// exist.
func (l *leg) reject(fd int) error {
	err := l.restore(fd)
	if err == nil {
		err = errors.Join(
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffNoProbe),
		)
	}
	return errors.Join(err, unix.Close(fd))
}

// reserveBoth reserves a socket for each connection of a pair.
func (p *Pair) reserveBoth() (fds [2]int, err error) {
	for i := range fds {
		if fds[i], err = p.leg(direction(i)).reserve(); err != nil {
			for _, fd := range fds[:i] {
				unix.Close(fd)
			}
			return fds, err
		}
	}
	return fds, nil
}
