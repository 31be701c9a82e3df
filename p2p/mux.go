package p2p

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// batchSize is how many messages are read from a socket at a time.
const batchSize = 32

// mux shares the sockets of an endpoint among its QUIC transports. It dispatches received
// packets by Destination Connection ID, as the relay does.
type mux struct {
	conf *udp.Config
	// sockets are those in use. The list is never changed, only replaced.
	sockets atomic.Pointer[[]*udp.Socket]

	mu         sync.RWMutex     // guards the following
	links      map[cid.ID]*link // by the IDs that they have issued
	initials   map[cid.ID]*link // by the random ID of the dialer's first flight
	controls   map[netip.AddrPort][]*relayClient
	probed     map[probeTag]*pathfinder        // by the tag of their probes
	tunnels    map[netip.AddrPort]*relayTunnel // by the address that stands for the tunnel; nil: reserved
	lastTunnel uint64                          // the number of the last such address

	unsorted atomic.Uint64 // received packets that belong to no connection
	refused  atomic.Uint64 // packets that the system did not send
	readers  sync.WaitGroup
}

// newMux starts to read conns. It owns them, also if it returns an error.
func newMux(conns []net.PacketConn, conf *udp.Config) (*mux, error) {
	m := &mux{
		conf:     conf,
		links:    make(map[cid.ID]*link),
		initials: make(map[cid.ID]*link),
		controls: make(map[netip.AddrPort][]*relayClient),
		probed:   make(map[probeTag]*pathfinder),
		tunnels:  make(map[netip.AddrPort]*relayTunnel),
	}
	sockets, err := m.open(conns)
	if err != nil {
		return nil, err
	}
	m.sockets.Store(&sockets)
	return m, nil
}

// open makes sockets of conns, and starts to read them. It owns conns, also if it returns
// an error.
func (m *mux) open(conns []net.PacketConn) ([]*udp.Socket, error) {
	var sockets []*udp.Socket
	var errs []error
	for _, conn := range conns {
		socket, err := udp.New(conn, m.conf)
		if err != nil {
			errs = append(errs, err, conn.Close())
			continue
		}
		sockets = append(sockets, socket)
	}
	if len(errs) > 0 {
		for _, s := range sockets {
			errs = append(errs, s.Close())
		}
		return nil, fmt.Errorf("p2p: open socket: %w", errors.Join(errs...))
	}
	for _, socket := range sockets {
		m.readers.Go(func() { m.read(socket) })
	}
	return sockets, nil
}

// all returns the sockets in use.
func (m *mux) all() []*udp.Socket { return *m.sockets.Load() }

// replace replaces the sockets, and returns the old ones. They are read until the caller
// closes them.
func (m *mux) replace(conns []net.PacketConn) ([]*udp.Socket, error) {
	sockets, err := m.open(conns)
	if err != nil {
		return nil, err
	}
	return *m.sockets.Swap(&sockets), nil
}

// read dispatches what a socket receives until it is closed.
func (m *mux) read(socket *udp.Socket) {
	batch := make([]udp.Message, batchSize)
	for {
		n, err := socket.ReadBatch(batch)
		if err != nil {
			return
		}
		for i := range batch[:n] {
			if tunnel.IsAddress(batch[i].Remote.Addr()) { // the sender has forged it
				m.unsorted.Add(uint64(batch[i].Count()))
				continue
			}
			m.split(&batch[i])
		}
	}
}

// split dispatches the datagrams of a message in runs with the same connection ID.
func (m *mux) split(msg *udp.Message) {
	run := *msg
	for data := msg.Data; len(data) > 0; data = data[len(run.Data):] {
		run.Data = data[:wire.Run(data, msg.SegmentSize, cid.Len)]
		m.dispatch(&run)
	}
}

// dispatch hands over datagrams with one connection ID. They go to the link that has
// issued the ID, or else, if they come from a relay, to the control connections with that
// relay: also a stateless reset, whose ID is random (RFC 9000 §10.3). A random ID from an
// offer never replaces one that this endpoint has issued.
func (m *mux) dispatch(run *udp.Message) {
	if tag, ok := tagOf(run.Data); ok {
		m.dispatchProbe(tag, run)
		return
	}
	dst, err := wire.DstID(run.Data, cid.Len)
	if err != nil {
		m.unsorted.Add(1)
		return
	}
	id, err := cid.IDFrom(dst)
	if err != nil {
		m.unsorted.Add(1)
		return
	}
	m.mu.RLock()
	link, controls := m.links[id], m.controls[run.Remote]
	if link == nil && wire.IsLong(run.Data[0]) {
		link = m.initials[id]
	}
	m.mu.RUnlock()
	switch {
	case link != nil:
		link.receive(run)
	case len(controls) > 0:
		// There are several if a relay has several names: quic-go ignores packets of
		// others.
		for _, c := range controls {
			c.receive(run)
		}
	default:
		m.unsorted.Add(1)
	}
}

// dispatchProbe hands over a datagram that looks like a probe.
func (m *mux) dispatchProbe(tag probeTag, run *udp.Message) {
	m.mu.RLock()
	f := m.probed[tag]
	m.mu.RUnlock()
	if f == nil || run.Count() != 1 || !f.receive(run.Data, run.Remote) {
		m.unsorted.Add(uint64(run.Count()))
	}
}

// write sends a message. The only error that it returns is EMSGSIZE, which quic-go needs
// for path MTU discovery. At any other error quic-go would close the connection, although
// a host without a route may get one again.
func (m *mux) write(msg *udp.Message) error {
	if err := m.push(msg); udp.IsMessageTooLong(err) {
		return err
	}
	return nil
}

// errNoSocket: the endpoint has no socket of an address's family.
var errNoSocket = errors.New("no socket for this family of addresses")

// push sends a message, and returns the error of the system.
func (m *mux) push(msg *udp.Message) error {
	if tunnel.IsAddress(msg.Remote.Addr()) {
		return m.pushTunnel(msg)
	}
	// quic-go answers from the address at which it was reached, which this host may
	// not have any more. Let the system choose.
	msg.Local = netip.Addr{}
	socket := m.toward(msg.Remote.Addr())
	if socket == nil {
		m.refused.Add(1)
		return errNoSocket
	}
	err := socket.Write(msg)
	if err != nil && !udp.IsMessageTooLong(err) {
		m.refused.Add(1)
	}
	return err
}

// toward returns the socket for an address, or nil. For the address of a tunnel it returns
// one whose capabilities a transport may assume.
func (m *mux) toward(addr netip.Addr) *udp.Socket {
	sockets := m.all()
	if tunnel.IsAddress(addr) {
		return sockets[0]
	}
	for _, s := range sockets {
		if s.LocalAddr().Addr().Is4() == addr.Is4() {
			return s
		}
	}
	for _, s := range sockets {
		// A socket bound to :: may reach both families.
		if local := s.LocalAddr().Addr(); local.Is6() && local.IsUnspecified() && len(sockets) == 1 {
			return s
		}
	}
	return nil
}

// reaches says whether there is a socket for an address.
func (m *mux) reaches(addr netip.Addr) bool { return m.toward(addr) != nil }

// add routes an ID to a link.
func (m *mux) add(id cid.ID, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[id] = l
}

// remove ends the route of an ID if it is that link's.
func (m *mux) remove(id cid.ID, l *link) { unroute(&m.mu, m.links, id, l) }

// addInitial routes the ID of an offer's first flight to a link. It returns false if the
// ID belongs to another link.
func (m *mux) addInitial(id cid.ID, l *link) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.initials[id] != nil || m.links[id] != nil {
		return false
	}
	m.initials[id] = l
	return true
}

func (m *mux) removeInitial(id cid.ID, l *link) { unroute(&m.mu, m.initials, id, l) }

// addControl routes packets from an address of a relay, and without a link's ID, to a
// relay client.
func (m *mux) addControl(addr netip.AddrPort, c *relayClient) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.controls[addr], c) {
		m.controls[addr] = append(slices.Clip(m.controls[addr]), c) // dispatch may read the old slice
	}
}

func (m *mux) removeControl(addr netip.AddrPort, c *relayClient) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rest []*relayClient
	for _, other := range m.controls[addr] {
		if other != c {
			rest = append(rest, other)
		}
	}
	if m.controls[addr] = rest; rest == nil {
		delete(m.controls, addr)
	}
}

// addProbed routes probes with a tag to a pathfinder.
func (m *mux) addProbed(tag probeTag, f *pathfinder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probed[tag] = f
}

func (m *mux) removeProbed(tag probeTag, f *pathfinder) { unroute(&m.mu, m.probed, tag, f) }

// unroute removes the route of a key if it leads to who.
func unroute[K, W comparable](mu *sync.RWMutex, routes map[K]W, key K, who W) {
	mu.Lock()
	defer mu.Unlock()
	if routes[key] == who {
		delete(routes, key)
	}
}

// close closes the sockets and the tunnels, and waits for their readers.
func (m *mux) close() error {
	m.closeTunnels()
	var errs []error
	for _, s := range m.all() {
		errs = append(errs, s.Close())
	}
	m.readers.Wait()
	return errors.Join(errs...)
}
