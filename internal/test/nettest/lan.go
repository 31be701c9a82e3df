package nettest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Dependence is how much of the outside address a NAT looks at: in its mapping (RFC 4787
// §4.1) and in its filter (RFC 4787 §5).
type Dependence int

const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressPortDependent
)

func (d Dependence) String() string {
	return [...]string{"endpoint-independent", "address-dependent", "address-and-port-dependent"}[d]
}

// Gateway connects a [LAN] to the network outside. For IPv4 it is a NAT, and for IPv6 a
// stateful firewall without translation (RFC 6092). With the zero values of Mapping and
// Filtering the NAT is a full cone. With AddressPortDependent for both it is symmetric.
type Gateway struct {
	Address string // the outside IPv4 address; "": no IPv4
	Prefix  string // the inside IPv6 prefix, routed from outside; "": no IPv6

	Mapping       Dependence
	Filtering     Dependence
	PreservePorts bool          // keep the inside port if it is free; otherwise ports are random
	Hairpin       bool          // inside hosts reach each other by Address (RFC 4787 §6)
	Lifetime      time.Duration // of a binding without packets; 0: two minutes (RFC 4787 §4.3)
	InboundKeeps  bool          // packets from outside refresh a binding, too

	// Allow reports whether packets may be sent to an address. nil allows all.
	Allow func(to netip.AddrPort) bool
}

// LAN is the network behind a [Gateway]. It has conditions of its own, and may have
// further LANs behind gateways, like a provider's network with a NAT (RFC 6598).
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

// LAN makes a network that is connected to n by a gateway.
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

// Forget clears the gateway's table, as a restart does.
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

// Renumber changes the outside address of the gateway, and clears its table.
func (l *LAN) Renumber(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outside.route(netip.PrefixFrom(l.address, 32), nil)
	l.address = netip.MustParseAddr(addr)
	l.outside.route(netip.PrefixFrom(l.address, 32), l.inbound)
	l.forgetLocked()
}

// outbound forwards a packet from inside.
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

// translateLocked replaces the source address of a packet by its outside address. It
// returns false if the packet may not leave.
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

// inbound forwards a packet from outside.
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

// route calls forward for packets to a prefix. A nil forward removes the route. route
// panics if two gateways have the same address.
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
