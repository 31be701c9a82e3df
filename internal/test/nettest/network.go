// Package nettest is the network of the tests: hosts, addresses and links
// within the process, whose losses, delays and NATs a test sets, and which work on
// the fake clock of testing/synctest. Nothing in it touches a real network.
package nettest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrUnreachable is what a write returns when the network has been told to
// refuse it, as a kernel does without a route (ENETUNREACH).
var ErrUnreachable = errors.New("network is unreachable")

// Conditions are those of every packet that crosses the network. The zero
// value is a perfect network.
type Conditions struct {
	Loss      float64       // probability that a packet is lost
	Duplicate float64       // probability that a packet arrives twice
	Delay     time.Duration // one way
	Jitter    time.Duration // more delay, uniform in [0, Jitter): reorders
	MTU       int           // largest UDP payload; 0 is no limit
}

// Packet is a datagram on its way.
type Packet struct {
	From, To netip.AddrPort
	Data     []byte

	// inbound: it has come in through a gateway, and does not leave by one
	// again if nobody is there.
	inbound bool
}

// Network joins conns, and gateways to the networks behind it ([Network.LAN]).
// Its zero value is not usable; see [New].
type Network struct {
	mu         sync.Mutex
	rng        *rand.Rand
	conns      map[netip.AddrPort]*Conn
	routes     map[netip.Prefix]func(Packet)
	gateway    func(Packet) // for what is nowhere here; nil is none
	conditions Conditions
	links      map[[2]netip.Addr]Conditions
	outages    map[netip.Addr]time.Time // the zero address is the network
	filter     func(Packet) bool
}

// New makes a network whose chances come from seed.
func New(seed uint64) *Network {
	return &Network{
		rng:     rand.New(rand.NewPCG(seed, 0)),
		conns:   make(map[netip.AddrPort]*Conn),
		routes:  make(map[netip.Prefix]func(Packet)),
		links:   make(map[[2]netip.Addr]Conditions),
		outages: make(map[netip.Addr]time.Time),
	}
}

// Set changes the conditions for packets sent from now on.
func (n *Network) Set(c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conditions = c
}

// Filter makes the network ask keep for every packet sent from now on, and
// drop those that it refuses. nil keeps all. keep must not call the network.
func (n *Network) Filter(keep func(Packet) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = keep
}

// Listen opens a conn at addr. It panics if addr is taken: two hosts of a
// test with one address are a mistake in the test.
func (n *Network) Listen(addr string) *Conn {
	c := newConn(netip.MustParseAddrPort(addr))
	c.source = func(netip.Addr) (*Network, netip.AddrPort, bool) { return n, n.public(c), true }
	c.detach = func() { n.remove(c) }
	n.attach(c.local, c)
	return c
}

// attach lets a conn have what is sent to addr.
func (n *Network) attach(addr netip.AddrPort, c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[addr] != nil {
		panic("nettest: address in use: " + addr.String())
	}
	n.conns[addr] = c
}

// detach ends that.
func (n *Network) detach(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, addr)
}

// Rebind gives c another public address, as a NAT does that forgot its
// mapping: what is sent to the old one is lost, and c, which is [Network.Listen]'s,
// does not notice.
func (n *Network) Rebind(c *Conn, addr string) {
	ap := netip.MustParseAddrPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c.public)
	c.public = ap
	n.conns[ap] = c
}

// Inject sends a packet with any source address, as an attacker does.
func (n *Network) Inject(p Packet) { n.send(p) }

// public returns the address that others see c at.
func (n *Network) public(c *Conn) netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return c.public
}

func (n *Network) remove(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[c.public] == c {
		delete(n.conns, c.public)
	}
}

// send decides the fate of a packet and starts it on its way. It keeps
// p.Data.
func (n *Network) send(p Packet) {
	for _, d := range n.fate(p) {
		if d == 0 {
			n.deliver(p)
		} else {
			time.AfterFunc(d, func() { n.deliver(p) })
		}
	}
}

// fate returns after which delay each copy of a packet arrives.
func (n *Network) fate(p Packet) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conditionsLocked(p)
	if n.filter != nil && !n.filter(p) ||
		n.outLocked(p) ||
		c.MTU > 0 && len(p.Data) > c.MTU ||
		c.Loss > 0 && n.rng.Float64() < c.Loss {
		return nil
	}
	copies := 1
	if c.Duplicate > 0 && n.rng.Float64() < c.Duplicate {
		copies = 2
	}
	var delays [2]time.Duration
	for i := range delays {
		delays[i] = c.Delay
		if c.Jitter > 0 {
			delays[i] += time.Duration(n.rng.Int64N(int64(c.Jitter)))
		}
	}
	return delays[:copies]
}

func (n *Network) deliver(p Packet) {
	n.mu.Lock()
	c, next := n.conns[p.To], n.nextLocked(p)
	n.mu.Unlock()
	switch {
	case c != nil:
		c.receive(p)
	case next != nil:
		next(p)
	}
}

// nextLocked returns who forwards a packet that is for nobody on the network.
func (n *Network) nextLocked(p Packet) func(Packet) {
	for prefix, forward := range n.routes {
		if prefix.Contains(p.To.Addr()) {
			return forward
		}
	}
	if p.inbound {
		return nil
	}
	return n.gateway
}

// UDPAddr is the net.Addr of an address.
func UDPAddr(ap netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(ap) }
