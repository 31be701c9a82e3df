package relay

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

const (
	// tunnelIdle is how long a tunnel may bring no datagram. It is the idle timeout of
	// control connections, of which every tunnel needs one: see unauthenticatedTimeout.
	tunnelIdle = time.Minute
	// tunnelBatch is how many messages of a tunnel are sorted at a time.
	tunnelBatch = 32
	// tunnelHopLimit is the hop limit of a datagram that comes out of a tunnel, which
	// carries none.
	tunnelHopLimit = 64
)

// tunnels are the tunnels of a server: TCP connections of clients that UDP does not reach.
// For the forwarding loops a tunnel is an address ([tunnel.Address]), like that of a NAT's
// mapping.
type tunnels struct {
	server  *Server
	log     *slog.Logger
	max     int // TCP connections; a site may have half of them, and a source a quarter
	refused ratelog.Errors
	dropped atomic.Uint64 // datagrams of the relay's own QUIC to tunnels that are full or gone
	// counters are those of the tunnels' shards, together.
	counters shardCounters
	serving  sync.WaitGroup // the TCP connections
	sorting  sync.WaitGroup // the goroutines of the tunnels, which outlive the connections

	mu     sync.RWMutex // guards the following
	closed bool
	conns  map[netip.Prefix]int // by source, and by site
	total  int
	last   uint64 // the number of the last tunnel
	open   map[netip.AddrPort]*clientTunnel
}

// clientTunnel is one tunnel.
type clientTunnel struct {
	addr   netip.AddrPort // stands for the tunnel
	client netip.AddrPort // of the TCP connection
	conn   net.Conn
	queue  *tunnel.Queue

	// Guarded by tunnels.mu: holders are the control connections in the tunnel that are
	// authenticated or wait for offers. unused closes a tunnel that has none.
	holders int
	unused  *time.Timer
}

func newTunnels(s *Server) *tunnels {
	return &tunnels{
		server: s,
		log:    s.log,
		max:    max(s.conf.MaxTunnels, 0),
		conns:  make(map[netip.Prefix]int),
		open:   make(map[netip.AddrPort]*clientTunnel),
	}
}

// enter counts a TCP connection. It returns false if there is no room for it.
func (t *tunnels) enter(from netip.Addr) bool {
	source, site := sourceOf(from), siteOf(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	maxSite, maxSource := partsOf(t.max)
	if t.closed || t.total >= t.max || t.conns[source] >= maxSource || t.conns[site] >= maxSite {
		return false
	}
	t.countLocked(source, site, 1)
	t.serving.Add(1)
	return true
}

// leave is the reverse of enter.
func (t *tunnels) leave(from netip.Addr) {
	t.mu.Lock()
	t.countLocked(sourceOf(from), siteOf(from), -1)
	t.mu.Unlock()
	t.serving.Done()
}

func (t *tunnels) countLocked(source, site netip.Prefix, n int) {
	t.total += n
	for _, p := range [...]netip.Prefix{source, site} {
		if t.conns[p] += n; t.conns[p] == 0 {
			delete(t.conns, p)
		}
		if source == site {
			return
		}
	}
}

// serve forwards the datagrams of a TCP connection, on which the client has asked for a
// tunnel, until the connection ends. It closes the connection.
func (t *tunnels) serve(conn net.Conn, client *tunnelConn, capsules *tunnel.Reader) {
	c := &clientTunnel{client: client.remote, conn: conn, queue: tunnel.NewQueue(conn, client.Conn)}
	if !t.add(c, func() { _ = client.Close() }) {
		_ = conn.Close()
		return
	}
	defer t.sorting.Done()
	var writer sync.WaitGroup
	writer.Go(c.queue.Run)
	err := t.read(c, capsules)
	t.remove(c)
	_ = c.queue.Close()
	writer.Wait()
	t.log.Debug("tunnel ended", "addr", c.client, "err", err)
}

// add gives a tunnel its address, which no other tunnel has had: what the server remembers of
// an address is never true of another tunnel. It calls end when the tunnel has had no holder for
// too long. It returns false if the server is closed. The caller calls sorting.Done at the end.
func (t *tunnels) add(c *clientTunnel, end func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.sorting.Add(1)
	t.last++
	c.addr = tunnel.Address(c.client, t.last)
	t.open[c.addr] = c
	c.unused = time.AfterFunc(unauthenticatedTimeout, func() {
		if !t.held(c) {
			end()
		}
	})
	return true
}

// hold notes that a control connection in the tunnel is authenticated or waits for offers.
func (t *tunnels) hold(c *clientTunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.holders++
	c.unused.Stop()
}

// release is the reverse of hold.
func (t *tunnels) release(c *clientTunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.holders--; c.holders == 0 && t.open[c.addr] == c {
		c.unused.Reset(unauthenticatedTimeout)
	}
}

func (t *tunnels) held(c *clientTunnel) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return c.holders > 0
}

func (t *tunnels) remove(c *clientTunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c.addr)
	c.unused.Stop()
}

// find returns the tunnel with an address, or nil if there is none any more.
func (t *tunnels) find(addr netip.AddrPort) *clientTunnel {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.open[addr]
}

// count returns the number of tunnels, and that of TCP connections.
func (t *tunnels) count() (open, conns int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.open), t.total
}

// read sorts what comes out of a tunnel, as a shard sorts what its socket receives, until
// the tunnel ends.
func (t *tunnels) read(c *clientTunnel, capsules *tunnel.Reader) error {
	sh := t.newShard()
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(tunnelIdle)); err != nil {
			return err
		}
		n, err := capsules.Read(sh.in)
		if err != nil {
			return err
		}
		for i := range sh.in[:n] {
			sh.in[i].Remote, sh.in[i].HopLimit = c.addr, tunnelHopLimit
		}
		sh.sortBatch(n)
	}
}

// newShard makes the shard of a tunnel, which has no socket.
func (t *tunnels) newShard() *shard {
	sh := &shard{
		server:   t.server,
		group:    -1,
		counters: &t.counters,
		in:       make([]udp.Message, tunnelBatch),
		out:      make([][]udp.Message, len(t.server.sockets.groups)),
	}
	return sh
}

// send sends a message of the relay's own QUIC into the tunnel with the message's
// address.
func (t *tunnels) send(m *udp.Message) {
	dropped := m.Count()
	if c := t.find(m.Remote); c != nil {
		dropped = c.queue.Push(m)
	}
	t.dropped.Add(uint64(dropped))
}

// clientOf returns the client's address for limits, logs and peers: the one of the TCP
// connection, for the address of a tunnel. Of a tunnel that has ended only the source and the
// port are known.
func (t *tunnels) clientOf(addr netip.AddrPort) netip.AddrPort {
	if !tunnel.IsAddress(addr.Addr()) {
		return addr
	}
	if c := t.find(addr); c != nil {
		return c.client
	}
	return netip.AddrPortFrom(tunnel.Source(addr.Addr()), addr.Port())
}

// refuse counts a TCP connection that gets no tunnel.
func (t *tunnels) refuse(from netip.AddrPort, err error) {
	t.refused.Add(t.log, slog.LevelWarn, "tunnel refused", err)
	t.log.Debug("tunnel refused", "addr", from, "err", err)
}

var errTooManyTunnels = errors.New("too many tunnels")

// close ends the tunnels, and waits for their goroutines. What has been queued for them
// is still sent.
func (t *tunnels) close() {
	t.mu.Lock()
	t.closed = true
	var queues []*tunnel.Queue
	for _, c := range t.open {
		queues = append(queues, c.queue)
	}
	t.mu.Unlock()
	var closing sync.WaitGroup
	for _, q := range queues {
		closing.Go(func() { _ = q.Close() })
	}
	closing.Wait()
	t.serving.Wait()
	t.sorting.Wait()
}
