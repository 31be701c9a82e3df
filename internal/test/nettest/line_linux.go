package nettest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Line is a cable between two hosts on which this process carries the packets, so that it
// can delay, lose, reorder, duplicate and mark them. Its interfaces have no offloads for
// what they send: each packet has its checksum, and fits into the MTU. They do not put
// together what they receive either: a veth has GRO only when it is told so. The line ends
// with the test. Its methods may be called concurrently.
type Line struct {
	middle *Host
	lanes  [2]*lineLane
}

// lineLane carries the packets of one direction.
type lineLane struct {
	from, to int // packet sockets
	stop     int
	mu       sync.Mutex // guards the following
	lane     *lane
}

const (
	lineBuffer   = 32 << 20 // of each packet socket
	lineMaxFrame = 1 << 16
	lineBatch    = 64 // frames that are read before those that are due are written
)

// NewLine connects two hosts as [Cable] does. The seed determines all random decisions.
func NewLine(a *Host, nameA string, addrsA []string, b *Host, nameB string, addrsB []string, seed uint64) *Line {
	a.tb.Helper()
	l := &Line{middle: NewHost(a.tb)}
	l.middle.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	Cable(a, nameA, addrsA, l.middle, "a", nil)
	Cable(b, nameB, addrsB, l.middle, "b", nil)
	a.offloadsOff(nameA)
	b.offloadsOff(nameB)
	var sockets [2]int
	l.middle.Do(func() (err error) {
		for i, name := range []string{"a", "b"} {
			if sockets[i], err = openLine(name); err != nil {
				return err
			}
		}
		return nil
	})
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		a.tb.Fatal(err)
	}
	var running sync.WaitGroup
	for i := range l.lanes {
		l.lanes[i] = &lineLane{from: sockets[i], to: sockets[1-i], stop: pipe[0], lane: newLane(seed, uint64(i))}
		running.Go(l.lanes[i].run)
	}
	a.tb.Cleanup(func() {
		_ = unix.Close(pipe[1])
		running.Wait()
		for _, fd := range []int{pipe[0], sockets[0], sockets[1]} {
			_ = unix.Close(fd)
		}
	})
	return l
}

// Set sets the conditions for packets in both directions that are sent from now on.
func (l *Line) Set(c LineConditions) { l.SetEach(c, c) }

// SetEach sets the conditions for packets from a to b, and from b to a.
func (l *Line) SetEach(ab, ba LineConditions) {
	for i, c := range []LineConditions{ab, ba} {
		l.lanes[i].mu.Lock()
		l.lanes[i].lane.conditions = c
		l.lanes[i].mu.Unlock()
	}
}

// Counts returns what has happened to the packets from a to b, and from b to a.
func (l *Line) Counts() (ab, ba LineCounts) {
	var counts [2]LineCounts
	for i, lane := range l.lanes {
		lane.mu.Lock()
		counts[i] = lane.lane.counts
		lane.mu.Unlock()
	}
	return counts[0], counts[1]
}

// openLine opens a packet socket on an interface that hosts send to.
func openLine(name string) (int, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	if err := switchOff(name, receiveOffloads); err != nil {
		return 0, err
	}
	// Protocol 0 receives nothing before the socket is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, lineBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, lineBuffer),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}),
	)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), unix.Close(fd))
	}
	return fd, nil
}

// run carries packets until the line ends. It stays on one CPU, so that the packets arrive in the
// order in which it writes them: see [OnOneCPU].
func (l *lineLane) run() {
	if err := settle(); err != nil {
		panic(err) // an error of this code
	}
	buf := make([]byte, lineMaxFrame)
	for {
		wait := l.write()
		polled := []unix.PollFd{{Fd: int32(l.from), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(polled, wait, nil); err != nil && err != unix.EINTR {
			panic(err) // an error of this code
		}
		if polled[1].Revents != 0 {
			return
		}
		l.read(buf)
	}
}

// write writes the frames that are due, and returns the time until the next one is.
func (l *lineLane) write() *unix.Timespec {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		frame := l.lane.deliver(now)
		if frame == nil {
			due, ok := l.lane.next()
			if !ok {
				return nil
			}
			wait := unix.NsecToTimespec(max(0, due.Sub(now)).Nanoseconds())
			return &wait
		}
		// An error is a lost packet: the interface is down, or its host is busy.
		_, _ = unix.Write(l.to, frame)
	}
}

// read accepts the frames that have arrived, up to lineBatch of them.
func (l *lineLane) read(buf []byte) {
	for range lineBatch {
		n, err := unix.Read(l.from, buf)
		if err != nil || n == 0 {
			return // there is no more, or the interface is down
		}
		frame := append([]byte(nil), buf[:n]...)
		l.mu.Lock()
		answer := l.lane.accept(frame, time.Now())
		l.mu.Unlock()
		if answer != nil {
			_, _ = unix.Write(l.from, answer)
		}
	}
}
