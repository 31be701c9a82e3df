// Package nettest provides networks for tests. A [Network] is a simulation within the
// process, with losses, delays and NATs, that works on the fake clock of
// testing/synctest. A [Host] is a network namespace of Linux.
package nettest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrUnreachable is the error of writes after [Conn.Unreachable], and of those that no
// route is for. It stands for ENETUNREACH.
var ErrUnreachable = errors.New("network is unreachable")

// Conditions are what happens to packets on a network. The zero value delivers all of
// them at once.
type Conditions struct {
	Loss      float64       // probability that a packet is lost
	Duplicate float64       // probability that a packet arrives twice
	Delay     time.Duration // one way
	Jitter    time.Duration // additional delay, uniform in [0, Jitter), which reorders packets
	MTU       int           // largest UDP payload; 0: no limit
}

// Packet is a datagram.
type Packet struct {
	From, To netip.AddrPort
	Data     []byte

	// inbound is set if the packet has come in through a gateway. It does not leave
	// through a gateway again.
	inbound bool
}

// Network connects conns, and LANs behind gateways ([Network.LAN]). Make one with [New].
type Network struct {
	mu         sync.Mutex
	rng        *rand.Rand
	conns      map[netip.AddrPort]*Conn
	routes     map[netip.Prefix]func(Packet)
	gateway    func(Packet) // for packets to addresses outside; nil: none
	conditions Conditions
	links      map[[2]netip.Addr]Conditions
	outages    map[netip.Addr]time.Time // the zero Addr stands for the whole network
	filter     func(Packet) bool
	listeners  map[netip.AddrPort]*listener
}

// New makes a network. The seed determines all random decisions.
func New(seed uint64) *Network {
	return &Network{
		rng:     rand.New(rand.NewPCG(seed, 0)),
		conns:   make(map[netip.AddrPort]*Conn),
		routes:  make(map[netip.Prefix]func(Packet)),
		links:   make(map[[2]netip.Addr]Conditions),
		outages: make(map[netip.Addr]time.Time),
	}
}

// Set sets the conditions for packets that are sent from now on.
func (n *Network) Set(c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conditions = c
}

// Filter sets a function that is called for every packet that is sent from now on. The
// packet is lost if keep returns false. nil keeps all. keep must not call the network.
func (n *Network) Filter(keep func(Packet) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = keep
}

// Listen opens a conn at addr. It panics if addr is in use.
func (n *Network) Listen(addr string) *Conn {
	c := newConn(netip.MustParseAddrPort(addr))
	c.source = func(netip.Addr) (*Network, netip.AddrPort, bool) { return n, n.public(c), true }
	c.detach = func() { n.remove(c) }
	n.attach(c.local, c)
	return c
}

// attach delivers packets to addr to a conn.
func (n *Network) attach(addr netip.AddrPort, c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[addr] != nil {
		panic("nettest: address in use: " + addr.String())
	}
	n.conns[addr] = c
}

// detach is the reverse of attach.
func (n *Network) detach(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, addr)
}

// Rebind changes the public address of c, as a NAT does that has lost its mapping.
// Packets to the old address are lost, and c does not notice. c must be from
// [Network.Listen].
func (n *Network) Rebind(c *Conn, addr string) {
	ap := netip.MustParseAddrPort(addr)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c.public)
	c.public = ap
	n.conns[ap] = c
}

// Inject sends a packet with any source address, as an off-path attacker does.
func (n *Network) Inject(p Packet) { n.send(p) }

// public returns the public address of c.
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

// send applies the conditions to a packet and delivers it. It keeps p.Data.
func (n *Network) send(p Packet) {
	for _, d := range n.fate(p) {
		if d == 0 {
			n.deliver(p)
		} else {
			time.AfterFunc(d, func() { n.deliver(p) })
		}
	}
}

// fate returns the delay of each copy of a packet that arrives.
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

// nextLocked returns the function that forwards a packet to an address that is not on
// the network, or nil.
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

// UDPAddr returns an address as a net.UDPAddr.
func UDPAddr(ap netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(ap) }
