package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// core connects hosts by TUN devices, and delays the packets that it forwards. Not every
// kernel has netem, which could do the same.
type core struct {
	delay time.Duration // of each packet
	cut   atomic.Bool   // drops packets between the sites
	relay netip.Addr    // the address that is not a site

	once    sync.Once
	punched func() // called once, with the first probe from one site to the other

	ports map[netip.Addr]*port // by the address of the host
}

func newCore(relay string, delay time.Duration, punched func()) *core {
	return &core{delay: delay, relay: netip.MustParseAddr(relay), punched: punched, ports: make(map[netip.Addr]*port)}
}

// port is the core's end of a device.
type port struct {
	file  *os.File
	queue chan delayed
}

type delayed struct {
	packet []byte
	due    time.Time
}

// queued is how many packets may be on their way to a host. Further ones are dropped.
const queued = 4096

// join adds a device with an address and the default route to a host.
func (c *core) join(h *nettest.Host, name, addr string) error {
	ip := netip.MustParseAddr(addr)
	p := &port{queue: make(chan delayed, queued)}
	err := h.Run(func() (err error) {
		if p.file, err = openTUN(name); err != nil {
			return err
		}
		return setup(name, ip)
	})
	c.ports[ip] = p
	return err
}

// openTUN makes a device in the network namespace of the calling thread.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func setup(name string, ip netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK})
}

// run forwards until close.
func (c *core) run() {
	for _, p := range c.ports {
		go c.read(p)
		go p.write()
	}
}

func (c *core) close() {
	for _, p := range c.ports {
		_ = p.file.Close()
	}
}

func (c *core) read(p *port) {
	b := make([]byte, 1<<16)
	for {
		n, err := p.file.Read(b)
		if err != nil {
			return
		}
		c.forward(b[:n])
	}
}

func (p *port) write() {
	for d := range p.queue {
		time.Sleep(time.Until(d.due))
		if _, err := p.file.Write(d.packet); err != nil {
			return
		}
	}
}

// forward forwards an IPv4 packet.
func (c *core) forward(b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	from, to := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p := c.ports[to]
	if p == nil {
		return
	}
	if from != c.relay && to != c.relay {
		if isProbe(b) {
			c.once.Do(c.punched)
		}
		if c.cut.Load() {
			return
		}
	}
	select {
	case p.queue <- delayed{append([]byte(nil), b...), time.Now().Add(c.delay)}:
	default:
	}
}

// isProbe says whether a packet holds a datagram that is not QUIC (RFC 9443 §3).
func isProbe(b []byte) bool {
	header := int(b[0]&0xf) * 4
	return b[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[6:])&0x1fff == 0 &&
		len(b) > header+8 && b[header+8] < 0x40
}
