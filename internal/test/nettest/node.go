package nettest

import (
	"net/netip"
	"slices"
	"sync"
)

// Node is a host with interfaces, which come and go while its conns stay: it
// has several addresses, of both families, and several ways out. A [Conn] of
// [Network.Listen] needs none.
type Node struct {
	mu         sync.Mutex
	interfaces []*netInterface // the first is the one of the default route
	conns      map[netip.AddrPort]*Conn
}

// netInterface is a node's way to a network.
type netInterface struct {
	name     string
	network  *Network
	prefixes []netip.Prefix // addresses, and what is on the link with them
}

// NewNode makes a node that is plugged to nothing.
func NewNode() *Node { return &Node{conns: make(map[netip.AddrPort]*Conn)} }

// Plug joins the node to a network by an interface with these addresses, with
// their prefix lengths: 192.168.1.2/24. If it has one of this name, that is
// moved, which is how a node changes its address. Packets to a prefix leave by
// its interface, others by the first plugged one that has the family.
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

// Unplug takes an interface away, and its addresses with it.
func (d *Node) Unplug(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.indexLocked(name); at >= 0 {
		d.attachLocked(d.interfaces[at], false)
		d.interfaces = slices.Delete(d.interfaces, at, at+1)
	}
}

// Prefer gives the default route to an interface.
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

// Listen opens a conn at an address of the node, or, at 0.0.0.0 or [::], at all
// that it has of the family, now and later. It panics if the address is taken.
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

// source chooses the interface, and the address of it, by which a conn with a
// local address writes to another one.
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

// attachLocked lets the node's conns hear an interface, or not any more.
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

// bound says whether a conn at local has what is for addr.
func bound(local, addr netip.Addr) bool {
	return local == addr || local.IsUnspecified() && local.Is4() == addr.Is4()
}
