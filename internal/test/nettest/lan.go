package nettest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Dependence is how much of the other end's address a NAT looks at: RFC 4787
// §4.1 for the mapping, §5 for the filter.
type Dependence int

const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressPortDependent
)

func (d Dependence) String() string {
	return [...]string{"endpoint-independent", "address-dependent", "address-and-port-dependent"}[d]
}

// Gateway is what stands between a [LAN] and the network outside: a NAT for
// IPv4, and a stateful firewall, which translates nothing, for IPv6 (RFC 6092).
// Mapping and filter as in the zero value are a full cone; mapping of both kinds
// that depend on port and address are a symmetric NAT.
type Gateway struct {
	Address string // outside, IPv4, for all inside; "" is no IPv4
	Prefix  string // inside, IPv6, routed from outside; "" is no IPv6

	Mapping       Dependence
	Filtering     Dependence
	PreservePorts bool          // if the port is free; otherwise it is random
	Hairpin       bool          // those inside reach each other by Address (RFC 4787 §6)
	Lifetime      time.Duration // of a binding without packets; 0 is two minutes (RFC 4787 §4.3)
	InboundKeeps  bool          // packets from outside keep a binding, too

	// Allow says where UDP may go to. nil is everywhere.
	Allow func(to netip.AddrPort) bool
}

// LAN is the network behind a [Gateway]. It has conditions of its own, and may
// have further gateways, as a provider's network with a NAT does (RFC 6598).
type LAN struct {
	*Network
	outside *Network

	mu       sync.Mutex
	conf     Gateway
	address  netip.Addr
	prefix   netip.Prefix
	rng      *rand.Rand
	bindings map[bindingKey]*binding
	owners   map[netip.AddrPort]*binding // by outside address
	forwards map[netip.AddrPort]*binding // by inside address
}

// LAN makes a network behind a gateway of this one.
func (n *Network) LAN(g Gateway) *LAN {
	n.mu.Lock()
	seed := n.rng.Uint64()
	n.mu.Unlock()
	l := &LAN{Network: New(seed), outside: n, conf: g, rng: rand.New(rand.NewPCG(seed, 1))}
	if l.conf.Lifetime == 0 {
		l.conf.Lifetime = 2 * time.Minute
	}
	l.forgetLocked()
	l.gateway = l.outbound
	if g.Address != "" {
		l.address = netip.MustParseAddr(g.Address)
		n.route(netip.PrefixFrom(l.address, 32), l.inbound)
	}
	if g.Prefix != "" {
		l.prefix = netip.MustParsePrefix(g.Prefix)
		n.route(l.prefix, l.inbound)
	}
	return l
}

// Forget makes the gateway lose its table, as one that restarts does.
func (l *LAN) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked()
}

func (l *LAN) forgetLocked() {
	l.bindings = make(map[bindingKey]*binding)
	l.owners = make(map[netip.AddrPort]*binding)
	l.forwards = make(map[netip.AddrPort]*binding)
}

// Renumber gives the gateway another address outside, and forgets what was
// bound to the old one.
func (l *LAN) Renumber(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outside.route(netip.PrefixFrom(l.address, 32), nil)
	l.address = netip.MustParseAddr(addr)
	l.outside.route(netip.PrefixFrom(l.address, 32), l.inbound)
	l.forgetLocked()
}

// outbound takes a packet from inside.
func (l *LAN) outbound(p Packet) {
	l.mu.Lock()
	ok := l.translateLocked(&p)
	hairpin := p.To.Addr() == l.address
	l.mu.Unlock()
	switch {
	case !ok:
	case hairpin:
		l.inbound(p)
	default:
		l.outside.send(p)
	}
}

// translateLocked gives a packet to outside its outside address, or returns
// false: it does not leave.
func (l *LAN) translateLocked(p *Packet) bool {
	to := p.To.Addr()
	switch {
	case l.conf.Allow != nil && !l.conf.Allow(p.To):
		return false
	case to.Is4():
		if !l.address.IsValid() || to == l.address && !l.conf.Hairpin {
			return false
		}
	case !l.prefix.Contains(p.From.Addr()):
		return false
	}
	b := l.bindLocked(p.From, p.To)
	b.sent(p.To)
	p.From = b.outside
	return true
}

// inbound takes a packet from outside.
func (l *LAN) inbound(p Packet) {
	l.mu.Lock()
	b := l.owners[p.To]
	ok := b != nil && b.admits(p.From, l.conf.Filtering, l.conf.Lifetime)
	if ok && l.conf.InboundKeeps {
		b.keep(p.From)
	}
	l.mu.Unlock()
	if !ok {
		return
	}
	p.To, p.inbound = b.inside, true
	l.send(p)
}

// route sends what is for a prefix to forward. nil ends that. It panics if two
// gateways of a test have one address.
func (n *Network) route(prefix netip.Prefix, forward func(Packet)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if forward == nil {
		delete(n.routes, prefix)
		return
	}
	if n.routes[prefix] != nil {
		panic("nettest: address in use: " + prefix.String())
	}
	n.routes[prefix] = forward
}
