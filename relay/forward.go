package relay

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// batchSize is how many messages a shard takes from its socket at a time. It is
// large so that, under load, the packets of many flows in turns are several of
// each, which the socket sends in trains.
const batchSize = 256

// shard is one socket and the loop that forwards what it receives.
type shard struct {
	server   *Server
	socket   *udp.Socket
	group    int // of the socket
	counters shardCounters

	// Of the loop alone. Outgoing messages are views of incoming ones, so
	// they are sent before the next batch is read.
	in  []udp.Message
	out [][]udp.Message // by socket group
	now time.Time       // of this batch
}

func newShard(s *Server, socket *udp.Socket) *shard {
	sh := &shard{
		server: s,
		socket: socket,
		group:  s.sockets.find(socket.LocalAddr()),
		in:     make([]udp.Message, batchSize),
		out:    make([][]udp.Message, len(s.sockets.groups)),
	}
	for i := range sh.out {
		sh.out[i] = make([]udp.Message, 0, batchSize)
	}
	return sh
}

// run forwards until the socket is closed. If it works no more the server ends: a
// relay that hears nothing must not seem to be there.
func (sh *shard) run() {
	for {
		if err := sh.step(); err != nil {
			if !errors.Is(err, net.ErrClosed) {
				sh.server.fail(fmt.Errorf("relay: read from %v: %w", sh.socket.LocalAddr(), err))
			}
			return
		}
	}
}

// step forwards one batch.
func (sh *shard) step() error {
	n, err := sh.socket.ReadBatch(sh.in)
	if err != nil {
		return err
	}
	sh.now = time.Now()
	for i := range sh.in[:n] {
		sh.sort(&sh.in[i])
	}
	sh.flush()
	return nil
}

// sort decides about a message run by run: the datagrams of a GRO train that
// carry one ID share one decision.
func (sh *shard) sort(m *udp.Message) {
	for data := m.Data; len(data) > 0; {
		n := wire.Run(data, m.SegmentSize, cid.Len)
		r := run{data: data[:n], message: m, packets: 1}
		if m.SegmentSize > 0 {
			r.packets = (n + m.SegmentSize - 1) / m.SegmentSize
		}
		sh.dispatch(&r)
		data = data[n:]
	}
}

// run is consecutive datagrams with one Destination Connection ID.
type run struct {
	data    []byte
	packets int
	message *udp.Message
}

// dispatch is the table in the package comment.
func (sh *shard) dispatch(r *run) {
	if wire.IsLong(r.data[0]) {
		sh.dispatchLong(r)
		return
	}
	id, err := wire.DstID(r.data, cid.Len)
	switch {
	case err != nil:
		sh.drop(r, DropShort)
	case cid.RoleOf(id) == cid.Relay:
		sh.control(r)
	default:
		to, ok := sh.lookup(id)
		if !ok || to.counter == noCounter { // of long headers alone
			sh.drop(r, DropUnknownID)
			return
		}
		sh.forward(r, &to)
	}
}

// dispatchLong sorts a packet of a handshake.
func (sh *shard) dispatchLong(r *run) {
	h, err := wire.Parse(r.data, cid.Len)
	if err != nil {
		sh.drop(r, DropShort)
		return
	}
	if to, ok := sh.lookup(h.DstID); ok {
		if cid.RoleOf(h.SrcID) == cid.Relay || h.Type == wire.Negotiation {
			sh.drop(r, DropRelayed)
			return
		}
		sh.forward(r, &to)
		return
	}
	// A dialer's Initial that has overtaken the accepter's registration
	// must not start a handshake with the relay.
	if _, ok := sh.lookup(h.SrcID); ok {
		sh.drop(r, DropNoPeer)
		return
	}
	sh.control(r)
}

// lookup asks the store who is behind an ID, and the session whether that is so.
func (sh *shard) lookup(b []byte) (route, bool) {
	id, err := cid.IDFrom(b)
	if err != nil || id.IsZero() {
		return route{}, false
	}
	sh.counters.lookups.Add(1)
	a, ok := sh.server.conf.Store.Get(id)
	if !ok {
		return route{}, false
	}
	return sh.server.sessions.route(&a)
}

// forward queues a run for the leg behind its ID, if it comes from the other
// leg of the same session.
func (sh *shard) forward(r *run, way *route) {
	ses, role := way.ses, way.role
	to, from := &ses.legs[role], &ses.legs[role.Peer()]
	src, dst := from.addr.Load(), to.addr.Load()
	if src == nil || dst == nil {
		sh.drop(r, DropNoPeer)
		return
	}
	if r.message.HopLimit == 1 {
		sh.drop(r, DropHopLimit)
		return
	}
	sight := origin
	if src.remote != r.message.Remote {
		sight = sh.server.stray(ses, role.Peer(), r.message.Remote, r.packets, sh.now)
	}
	if sight == stranger {
		sh.drop(r, DropWrongSource)
		return
	}
	switch {
	case way.counter == noCounter:
	case way.counter >= to.due.Load(), way.counter < to.low.Load() && to.late.Add(uint32(r.packets)) > lateBudget:
		sh.server.hit(way)
	}
	if sight == origin {
		from.heard.Store(sh.now.UnixNano())
	}
	sh.counters.packets.Add(uint64(r.packets))
	sh.counters.bytes.Add(uint64(len(r.data)))
	sh.queue(r, dst)
}

// queue adds a run to what will be sent to dst. It may make one hop less than
// before, as behind a router, so that nothing goes round for ever.
func (sh *shard) queue(r *run, dst *legAddr) {
	m := udp.Message{Data: r.data, Remote: dst.remote, Local: dst.local, ECN: r.message.ECN, HopLimit: r.message.HopLimit}
	if m.HopLimit > 0 {
		m.HopLimit--
	}
	if r.packets > 1 {
		m.SegmentSize = r.message.SegmentSize
	}
	sh.out[dst.group] = append(sh.out[dst.group], m)
}

// control hands a run to the relay's own QUIC.
func (sh *shard) control(r *run) {
	m := *r.message
	m.Data = r.data
	sh.server.amplify.Received(m.Remote, m.Data, len(m.Data))
	dropped := sh.server.control.Deliver(&m)
	sh.counters.control.Add(uint64(r.packets - dropped))
	if dropped > 0 {
		sh.counters.dropped[DropControlQueue].Add(uint64(dropped))
	}
}

func (sh *shard) drop(r *run, why Reason) {
	sh.counters.dropped[why].Add(uint64(r.packets))
}

// flush sends what has been queued. What the system refuses the socket counts.
func (sh *shard) flush() {
	for group, out := range sh.out {
		if len(out) == 0 {
			continue
		}
		socket := sh.socket
		if group != sh.group {
			socket = sh.server.sockets.groups[group].sockets[0]
		}
		_ = socket.WriteBatch(out)
		clear(out)
		sh.out[group] = out[:0]
	}
}
