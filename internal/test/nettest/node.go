package nettest

import (
	"net/netip"
	"slices"
	"sync"
)

// Node is a simulated host with interfaces, which may be added and removed while its
// conns stay. It may have several addresses of both families, and several networks. A
// [Conn] of [Network.Listen] needs no Node.
type Node struct {
	mu         sync.Mutex
	interfaces []*netInterface // the first one has the default route
	conns      map[netip.AddrPort]*Conn
}

// netInterface connects a node to a network.
type netInterface struct {
	name     string
	network  *Network
	prefixes []netip.Prefix // addresses, with the prefixes on the link
}

// NewNode makes a node without interfaces.
func NewNode() *Node { return &Node{conns: make(map[netip.AddrPort]*Conn)} }

// Plug connects the node to a network by an interface with these addresses, which have
// their prefix lengths: 192.168.1.2/24. An interface of the same name is replaced, which
// changes the address of the node. Packets to a prefix on a link leave by its interface,
// and others by the first interface that has an address of their family.
func (d *Node) Plug(name string, n *Network, addrs ...string) {
	i := &netInterface{name: name, network: n}
	for _, addr := range addrs {
		i.prefixes = append(i.prefixes, netip.MustParsePrefix(addr))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.indexLocked(name); at >= 0 {
		d.attachLocked(d.interfaces[at], false)
		d.interfaces[at] = i
	} else {
		d.interfaces = append(d.interfaces, i)
	}
	d.attachLocked(i, true)
}

// Unplug removes an interface and its addresses.
func (d *Node) Unplug(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.indexLocked(name); at >= 0 {
		d.attachLocked(d.interfaces[at], false)
		d.interfaces = slices.Delete(d.interfaces, at, at+1)
	}
}

// Prefer moves the default route to an interface.
func (d *Node) Prefer(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.indexLocked(name); at > 0 {
		i := d.interfaces[at]
		d.interfaces = slices.Insert(slices.Delete(d.interfaces, at, at+1), 0, i)
	}
}

// Addrs returns the node's addresses.
func (d *Node) Addrs() []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	var addrs []netip.Addr
	for _, i := range d.interfaces {
		for _, p := range i.prefixes {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs
}

// Listen opens a conn at an address of the node. At 0.0.0.0 or [::], it has all addresses
// of the family that the node has now and later. Listen panics if the address is in use.
func (d *Node) Listen(addr string) *Conn {
	c := newConn(netip.MustParseAddrPort(addr))
	c.source = func(to netip.Addr) (*Network, netip.AddrPort, bool) { return d.source(c.local, to) }
	c.detach = func() { d.remove(c) }
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns[c.local] != nil {
		panic("nettest: address in use: " + addr)
	}
	d.conns[c.local] = c
	for _, i := range d.interfaces {
		attach(i, c, true)
	}
	return c
}

// source returns the network and the source address of packets that a conn with a local
// address sends to another address.
func (d *Node) source(local netip.AddrPort, to netip.Addr) (*Network, netip.AddrPort, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var network *Network
	from := local
	for _, i := range d.interfaces {
		for _, p := range i.prefixes {
			if !bound(local.Addr(), p.Addr()) || to.IsValid() && to.Is4() != p.Addr().Is4() {
				continue
			}
			onLink := p.Contains(to)
			if onLink || network == nil {
				network, from = i.network, netip.AddrPortFrom(p.Addr(), local.Port())
			}
			if onLink {
				return network, from, true
			}
		}
	}
	return network, from, network != nil
}

func (d *Node) remove(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.interfaces {
		attach(i, c, false)
	}
	delete(d.conns, c.local)
}

func (d *Node) indexLocked(name string) int {
	return slices.IndexFunc(d.interfaces, func(i *netInterface) bool { return i.name == name })
}

// attachLocked delivers packets from an interface to the node's conns, or stops that.
func (d *Node) attachLocked(i *netInterface, yes bool) {
	for _, c := range d.conns {
		attach(i, c, yes)
	}
}

func attach(i *netInterface, c *Conn, yes bool) {
	for _, p := range i.prefixes {
		if !bound(c.local.Addr(), p.Addr()) {
			continue
		}
		at := netip.AddrPortFrom(p.Addr(), c.local.Port())
		if yes {
			i.network.attach(at, c)
		} else {
			i.network.detach(at)
		}
	}
}

// bound reports whether a conn at local receives packets to addr.
func bound(local, addr netip.Addr) bool {
	return local == addr || local.IsUnspecified() && local.Is4() == addr.Is4()
}
