package main

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetSize is the size of each datagram that the sender sends.
const packetSize = 1200

// flow is a socket of the sender, and what it sends.
type flow struct {
	conn    *net.UDPConn
	fd      int
	data    []byte // a packet, or several
	control []byte // with the size of one, if there are several
}

// open opens the next flow, of packets that begin so, to an address.
func (b *bed) open(begin []byte, to netip.AddrPort) {
	from := net.UDPAddrFromAddrPort(b.senderOf(len(b.flows)))
	f := &flow{}
	b.sender.Do(func() (err error) {
		f.conn, err = net.DialUDP("udp4", from, net.UDPAddrFromAddrPort(to))
		return err
	})
	b.Cleanup(func() { f.conn.Close() })
	raw, err := f.conn.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { f.fd = int(fd) }); err != nil {
		b.Fatal(err)
	}
	packet := append(bytes.Clone(begin), make([]byte, packetSize-len(begin))...)
	f.data = bytes.Repeat(packet, b.shape.train)
	if b.shape.train > 1 {
		f.control = segments(packetSize)
	}
	b.flows = append(b.flows, f)
}

// senderOf and sinkOf are the addresses of the ends of a flow.
func (b *bed) senderOf(flow int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(senderAddr), senderPort+uint16(flow))
}

func (b *bed) sinkOf(flow int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(sinkAddr), sinkPort+uint16(flow))
}

// segments returns the control message that says how long a packet is (UDP_SEGMENT).
func segments(size uint16) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], size)
	return oob
}

// flood sends as fast as one thread can, in all flows in turns.
func (b *bed) flood(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	next := 0
	for end := time.Now().Add(d); time.Now().Before(end) && b.ctx.Err() == nil; {
		for range 16 {
			f := b.flows[next]
			// What the kernel does not take is lost, as if it had been sent.
			_, _ = unix.SendmsgN(f.fd, f.data, f.control, nil, unix.MSG_DONTWAIT)
			if next++; next == len(b.flows) {
				next = 0
			}
		}
	}
}
