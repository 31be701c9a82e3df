package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// direct is what a link has beside the relay: where the peer has been heard from,
// and, at the dialer, which alone can migrate a QUIC connection, the transports
// that packets take there. quic-go gives each path a transport, and sends to the
// address that was dialed by all of them: where packets really go is ours to say.
type direct struct {
	// activity is that of the path in use.
	activity activity
	// peers are the addresses whose packets are the peer's: it has proved
	// them by probes. A list that is never changed, only replaced.
	peers atomic.Pointer[[]netip.AddrPort]
	// dead, if not nil, is an address where the peer does not answer any
	// more: what quic-go sends there goes to the relay.
	dead atomic.Pointer[netip.AddrPort]
	// ways are the one in use, and the next. Once made they stay until the
	// link ends, because with a transport ends whatever uses it.
	ways [2]atomic.Pointer[way]
	// size is that of the path in use.
	size pathSize
}

// way is a transport of a dialer's direct path.
type way struct {
	link      *link
	remote    atomic.Pointer[netip.AddrPort]
	virtual   udp.Conn
	transport *quic.Transport
}

// maxPeers bounds the addresses that one peer can have proved.
const maxPeers = 8

// knows says whether packets from an address are the peer's.
func (d *direct) knows(addr netip.AddrPort) bool {
	peers := d.peers.Load()
	return peers != nil && slices.Contains(*peers, addr)
}

// learn takes note of an address that the peer has proved. If there are too many,
// the one that was proved first is forgotten, but not the one in use.
func (d *direct) learn(addr, used netip.AddrPort) {
	if d.knows(addr) {
		return
	}
	var peers []netip.AddrPort
	if old := d.peers.Load(); old != nil {
		peers = slices.Clone(*old)
	}
	if len(peers) == maxPeers {
		i := 0
		if peers[i] == used {
			i++
		}
		peers = slices.Delete(peers, i, i+1)
	}
	peers = append(peers, addr)
	d.peers.Store(&peers)
}

// newWay makes a way to an address.
func (l *link) newWay() (*way, error) {
	w := &way{link: l}
	conn, err := udp.NewVirtual(&udp.VirtualConfig{Socket: l.mux.toward(l.relay.Addr()), Send: w.send})
	if err != nil {
		return nil, err
	}
	w.virtual = conn
	// IDs are those of the connection, which this transport must find in packets.
	w.transport = &quic.Transport{Conn: conn, ConnectionIDGenerator: l.ids, DisableVersionNegotiationPackets: true}
	return w, nil
}

// spare returns a way other than the one in use.
func (l *link) spare(used *way) (*way, error) {
	for i := range l.direct.ways {
		slot := &l.direct.ways[i]
		w := slot.Load()
		if w != nil && w == used {
			continue
		}
		var err error
		if w == nil {
			if w, err = l.newWay(); err == nil {
				slot.Store(w)
			}
		}
		return w, err
	}
	panic("p2p: more ways than one in use")
}

// send sends what quic-go writes to where the way leads.
func (w *way) send(m *udp.Message) error {
	out := *m
	out.Remote = *w.remote.Load()
	return w.link.sendDirect(&out)
}

// sendDirect sends past the relay, unless the peer is known not to be there.
func (l *link) sendDirect(m *udp.Message) error {
	l.direct.activity.sent(m.Count())
	if dead := l.direct.dead.Load(); dead != nil && *dead == m.Remote {
		m.Remote = l.remote()
		l.activity.sent(m.Count())
		return l.carry(m, &l.size)
	}
	return l.carry(m, &l.direct.size)
}

// receiveDirect takes packets that did not come from the relay, if the peer has
// proved their address.
func (l *link) receiveDirect(m *udp.Message) {
	if !l.direct.knows(m.Remote) {
		l.mux.unsorted.Add(uint64(m.Count()))
		return
	}
	l.direct.activity.received()
	if dead := l.direct.dead.Load(); dead != nil && *dead == m.Remote {
		l.direct.dead.CompareAndSwap(dead, nil) // it is there again
	}
	conn := l.virtual
	if l.role == control.Dialer {
		conn = l.direct.conn(m.Remote, conn)
	}
	conn.Deliver(m)
}

// conn is the one of the way from an address. A client takes packets by any.
func (d *direct) conn(remote netip.AddrPort, otherwise udp.Conn) udp.Conn {
	for i := range d.ways {
		w := d.ways[i].Load()
		if w == nil {
			break
		}
		if r := w.remote.Load(); r != nil && *r == remote {
			return w.virtual
		}
	}
	return otherwise
}

// closeDirect ends the ways, with those connections that are left on them.
func (l *link) closeDirect() error {
	var errs []error
	for i := range l.direct.ways {
		if w := l.direct.ways[i].Load(); w != nil {
			errs = append(errs, w.transport.Close())
			w.virtual.Close()
		}
	}
	return errors.Join(errs...)
}

// Timing of a move.
const (
	// moveTimeout is how long QUIC may take to validate a path that probes
	// have found good.
	moveTimeout = 2 * time.Second
	// standbyTimeout is the same for the way back, by the relay.
	standbyTimeout = 5 * time.Second
)

// move is a path that a dialer has moved its connection to, or tried to.
type move struct {
	way    *way
	path   *quic.Path
	remote netip.AddrPort
	err    error
}

// moveTo migrates the connection to an address (RFC 9000 §9): one path, one
// validation, one switch, because each path takes a connection ID of the few that
// there are. It blocks.
func (c *Conn) moveTo(w *way, remote netip.AddrPort) move {
	w.remote.Store(&remote)
	m := move{way: w, remote: remote}
	if m.path, m.err = c.AddPath(w.transport); m.err != nil {
		return m
	}
	ctx, cancel := context.WithTimeout(c.Context(), moveTimeout)
	defer cancel()
	if m.err = m.path.Probe(ctx); m.err == nil {
		m.err = m.path.Switch()
	}
	if m.err != nil {
		m.err = errors.Join(fmt.Errorf("path not validated: %w", m.err), m.path.Close())
		return m
	}
	c.wake()
	return m
}

// wake has quic-go send something after a switch. It does not look at what it should
// do by itself, and the peer follows only a packet that is no mere probe.
func (c *Conn) wake() { c.tell(frame{kind: frameKeepAlive}) }

// prepareStandby validates the way back over the relay while it is not needed:
// when the path in use has died with data under way, quic-go would send no probe.
// It can only be done when the peer has left the relay, because a server does not
// answer a probe from where its client is. It blocks.
func (c *Conn) prepareStandby() (*quic.Path, error) {
	sleep(c.Context(), c.ConnectionStats().SmoothedRTT+10*time.Millisecond)
	path, err := c.AddPath(c.link.transport)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context(), standbyTimeout)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		return nil, errors.Join(err, path.Close())
	}
	return path, nil
}
