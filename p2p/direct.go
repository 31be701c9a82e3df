package p2p

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// directLink is the part of a link that does not go through the relay: which addresses
// are the peer's, and the transports of a dialer's direct paths. Only the dialer can
// migrate a QUIC connection. quic-go has a transport for each path, and sends to the
// address that was dialed on all of them. directTransport changes the address.
type directLink struct {
	// activity and size are those of the direct path in use.
	activity activity
	size     pathSize
	// proved are the addresses whose packets are the peer's: it has sent probes from
	// there. The list is never changed, only replaced.
	proved atomic.Pointer[[]netip.AddrPort]
	// dead, if not nil, is an address where the peer does not answer any more.
	// Packets that quic-go sends there go to the relay.
	dead atomic.Pointer[netip.AddrPort]
	// transports are the one in use and a spare one. They stay until the link ends,
	// because closing a transport ends the connections on it.
	transports [2]atomic.Pointer[directTransport]
}

// directTransport is the transport of a dialer's direct path.
type directTransport struct {
	link      *link
	remote    atomic.Pointer[netip.AddrPort] // where packets go
	virtual   udp.Conn
	transport *quic.Transport
}

// maxProved bounds the addresses that one peer can have proved.
const maxProved = 8

// isProved says whether packets from an address are the peer's.
func (d *directLink) isProved(addr netip.AddrPort) bool {
	proved := d.proved.Load()
	return proved != nil && slices.Contains(*proved, addr)
}

// prove takes note of an address that the peer has proved. If there are too many, the
// one that was proved first is forgotten, but not the one in use.
func (d *directLink) prove(addr, used netip.AddrPort) {
	if d.isProved(addr) {
		return
	}
	var proved []netip.AddrPort
	if old := d.proved.Load(); old != nil {
		proved = slices.Clone(*old)
	}
	if len(proved) == maxProved {
		i := 0
		if proved[i] == used {
			i++
		}
		proved = slices.Delete(proved, i, i+1)
	}
	proved = append(proved, addr)
	d.proved.Store(&proved)
}

// newDirectTransport makes a transport for a direct path.
func (l *link) newDirectTransport() (*directTransport, error) {
	t := &directTransport{link: l}
	conn, err := udp.NewVirtual(&udp.VirtualConfig{Socket: l.mux.toward(l.relay.Addr()), Send: t.send})
	if err != nil {
		return nil, err
	}
	t.virtual = conn
	// The connection's own generator: this transport must know the connection IDs.
	t.transport = &quic.Transport{Conn: conn, ConnectionIDGenerator: l.ids, DisableVersionNegotiationPackets: true}
	return t, nil
}

// spareTransport returns a transport other than the one in use.
func (l *link) spareTransport(used *directTransport) (*directTransport, error) {
	for i := range l.direct.transports {
		slot := &l.direct.transports[i]
		t := slot.Load()
		if t != nil && t == used {
			continue
		}
		var err error
		if t == nil {
			if t, err = l.newDirectTransport(); err == nil {
				slot.Store(t)
			}
		}
		return t, err
	}
	panic("p2p: both direct transports are in use")
}

// send sends what quic-go writes to the transport's remote address.
func (t *directTransport) send(m *udp.Message) error {
	out := *m
	out.Remote = *t.remote.Load()
	return t.link.sendDirect(&out)
}

// sendDirect sends to the peer without the relay, unless the peer does not answer there
// any more: then it sends through the relay.
func (l *link) sendDirect(m *udp.Message) error {
	l.direct.activity.sent(m.Count())
	if dead := l.direct.dead.Load(); dead != nil && *dead == m.Remote {
		m.Remote = l.remote()
		l.activity.sent(m.Count())
		return l.carry(m, &l.size)
	}
	return l.carry(m, &l.direct.size)
}

// receiveDirect takes packets that did not come from the relay. It drops them unless
// the peer has proved the address that they come from.
func (l *link) receiveDirect(m *udp.Message) {
	if !l.direct.isProved(m.Remote) {
		l.mux.unsorted.Add(uint64(m.Count()))
		return
	}
	l.direct.activity.received()
	if dead := l.direct.dead.Load(); dead != nil && *dead == m.Remote {
		l.direct.dead.CompareAndSwap(dead, nil) // it answers again
	}
	conn := l.virtual
	if l.role == control.Dialer {
		conn = l.direct.conn(m.Remote, conn)
	}
	conn.Deliver(m)
}

// conn returns the conn of the transport to an address, or otherwise if there is none:
// quic-go's client takes packets on any transport.
func (d *directLink) conn(remote netip.AddrPort, otherwise udp.Conn) udp.Conn {
	for i := range d.transports {
		t := d.transports[i].Load()
		if t == nil {
			break
		}
		if r := t.remote.Load(); r != nil && *r == remote {
			return t.virtual
		}
	}
	return otherwise
}

// closeDirect closes the direct transports. Connections that are left on them end.
func (l *link) closeDirect() error {
	var errs []error
	for i := range l.direct.transports {
		if t := l.direct.transports[i].Load(); t != nil {
			errs = append(errs, t.transport.Close())
			t.virtual.Close()
		}
	}
	return errors.Join(errs...)
}
