package sni

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// quicBatch is how many messages a shard reads from its socket at once.
const quicBatch = 256

// shard is one UDP socket for clients, with the upstream sockets of the flows that have begun
// there. One goroutine reads each side.
type shard struct {
	relay  *quicRelay
	socket *udp.Socket
	group  *udp.Group
	in     []udp.Message
	back   []udp.Message // used only by the loop of the group

	mu    sync.Mutex // guards the following
	peers map[endpoints]*peer
	now   int64 // time of this batch, since the epoch in ns
	// What this batch sends to upstreams: the datagrams of each flow are linked. They are
	// views of what was read.
	out     []queued
	dirty   []*flow // the flows that have some
	scratch []udp.Message

	gone    []endpoints // of flows that have ended; the table's lock guards it
	hasGone atomic.Bool

	// Counters, which a batch adds to.
	fromClients, fromUpstreams carried
}

// carried counts what was relayed in one direction.
type carried struct{ datagrams, bytes atomic.Uint64 }

func (t *carried) add(datagrams, bytes uint64) {
	t.datagrams.Add(datagrams)
	t.bytes.Add(bytes)
}

// queued is a message to an upstream.
type queued struct {
	udp.Message
	next int32 // index of the flow's next one; none: there is none
}

const none = -1

// peer has the flows of a client's address. Most have one: a client may have several
// connections on one socket.
type peer struct {
	endpoints
	flows []*flow
}

func newShard(q *quicRelay, conn net.PacketConn) (*shard, error) {
	socket, err := udp.New(conn, nil)
	if err != nil {
		return nil, err
	}
	group, err := udp.NewGroup()
	if err != nil {
		return nil, err
	}
	return &shard{
		relay: q, socket: socket, group: group, in: make([]udp.Message, quicBatch), peers: make(map[endpoints]*peer),
	}, nil
}

// read reads what clients send, until the socket is closed or fails.
func (sh *shard) read() error {
	for {
		if err := sh.step(); err != nil {
			return fmt.Errorf("read from %v: %w", sh.socket.LocalAddr(), err)
		}
	}
}

// step reads and relays one batch.
func (sh *shard) step() error {
	n, err := sh.socket.ReadBatch(sh.in)
	if err != nil {
		return err
	}
	sh.batch(monotime.Now(), sh.in[:n])
	return nil
}

// batch relays messages that have come at a time.
func (sh *shard) batch(now int64, messages []udp.Message) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.now = now
	for i := range messages {
		sh.sort(&messages[i])
	}
	sh.flush()
	sh.forget()
}

// run is consecutive datagrams of a message with one connection ID.
type run struct {
	data      []byte
	datagrams int
	message   *udp.Message
}

// sort relays a message run by run.
func (sh *shard) sort(m *udp.Message) {
	at := endpoints{m.Remote, m.Local}
	p := sh.peers[at]
	for data := m.Data; len(data) > 0; {
		n := wire.Run(data, m.SegmentSize, p.idLen())
		r := run{data: data[:n], datagrams: 1, message: m}
		if m.SegmentSize > 0 {
			r.datagrams = (n + m.SegmentSize - 1) / m.SegmentSize
		}
		data = data[n:]
		if f := p.only(); f != nil && !wire.IsLong(r.data[0]) && f.isKnown(r.data) {
			sh.forward(f, &r)
			continue
		}
		sh.dispatch(at, p, &r)
		p = sh.peers[at]
	}
}

// idLen returns the length of the longest ID that a short header from an address may have.
func (p *peer) idLen() int {
	if p == nil {
		return wire.MaxIDLen
	}
	longest := 0
	for _, f := range p.flows {
		n := int(f.conn.idLen.Load())
		if n < 0 {
			return wire.MaxIDLen
		}
		longest = max(longest, n)
	}
	return longest
}

// only returns the flow of an address that has exactly one, with a socket; or nil.
func (p *peer) only() *flow {
	if p == nil || len(p.flows) != 1 || !p.flows[0].usable() {
		return nil
	}
	return p.flows[0]
}

// forget forgets the flows that have ended. The caller holds the shard's lock.
func (sh *shard) forget() {
	if !sh.hasGone.Load() {
		return
	}
	t := sh.relay.table
	t.mu.Lock()
	gone := sh.gone
	sh.gone = nil
	sh.hasGone.Store(false)
	t.mu.Unlock()
	for _, at := range gone {
		if p := sh.peers[at]; p != nil {
			sh.prune(p)
		}
	}
}

// prune forgets those flows of an address that have ended.
func (sh *shard) prune(p *peer) {
	n := 0
	for _, f := range p.flows {
		if f.ended.Load() {
			f.attempt = nil
			continue
		}
		p.flows[n] = f
		n++
	}
	clear(p.flows[n:])
	if p.flows = p.flows[:n]; n == 0 {
		delete(sh.peers, p.endpoints)
	}
}

// join adds a flow to those of its address.
func (sh *shard) join(f *flow) {
	p := sh.peers[f.endpoints]
	if p == nil {
		p = &peer{endpoints: f.endpoints}
		sh.peers[f.endpoints] = p
	}
	p.flows = append(p.flows, f)
}

// forward sends a run to the flow's upstream, with the next flush.
func (sh *shard) forward(f *flow, r *run) {
	if r.message.HopLimit == 1 {
		sh.drop(r, DropHopLimit)
		return
	}
	f.active.Store(sh.now)
	f.fromClient.Add(uint64(len(r.data)))
	sh.fromClients.add(uint64(r.datagrams), uint64(len(r.data)))
	if !f.confirmed.Load() {
		f.credit.Add(factor * int64(len(r.data)))
	}
	sh.queue(f, r)
}

// toUpstream returns the message that an upstream gets. It lowers the hop limit by one, like a
// router, so that no packet circulates for ever between relays.
func (r *run) toUpstream() udp.Message {
	m := udp.Message{Data: r.data, ECN: r.message.ECN, HopLimit: r.message.HopLimit}
	if m.HopLimit > 0 {
		m.HopLimit--
	}
	if r.datagrams > 1 {
		m.SegmentSize = r.message.SegmentSize
	}
	return m
}

// queue adds a run to what will be sent to the flow's upstream.
func (sh *shard) queue(f *flow, r *run) {
	at := int32(len(sh.out))
	sh.out = append(sh.out, queued{r.toUpstream(), none})
	if f.first == none {
		f.first = at
		sh.dirty = append(sh.dirty, f)
	} else {
		sh.out[f.final].next = at
	}
	f.final = at
}

// flush sends what has been queued.
func (sh *shard) flush() {
	for i, f := range sh.dirty {
		for at := f.first; at != none; at = sh.out[at].next {
			sh.scratch = append(sh.scratch, sh.out[at].Message)
		}
		f.first, f.final = none, none
		sh.send(f, sh.scratch)
		clear(sh.scratch)
		sh.scratch = sh.scratch[:0]
		sh.dirty[i] = nil
	}
	clear(sh.out)
	sh.out, sh.dirty = sh.out[:0], sh.dirty[:0]
}

// send sends datagrams to the flow's upstream.
func (sh *shard) send(f *flow, ms []udp.Message) {
	member := f.member.Load()
	if member == nil {
		return
	}
	if err := member.WriteBatch(ms); err != nil && !errors.Is(err, net.ErrClosed) {
		sh.upstreamError(f, member, err)
	}
}

// drop counts a run that is not relayed.
func (sh *shard) drop(r *run, why Drop) { sh.relay.counters.drop(why, r.datagrams) }

// dead reports whether an error of a socket says that there is no upstream: an ICMP message
// said so.
func dead(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
