package relay

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// batchSize is how many messages a shard reads from its socket at once. Under load a
// large batch has several packets of each flow, which the socket sends as trains (GSO).
const batchSize = 256

// shard is one socket, and the loop that forwards the packets that it receives. Each tunnel
// has a shard as well, without a socket.
type shard struct {
	server   *Server
	socket   *udp.Socket
	group    int // of the sockets that socket belongs to
	counters *shardCounters

	// Used only by the loop. Outgoing messages are views of incoming ones, so
	// they are sent before the next batch is read.
	in  []udp.Message
	out [][]udp.Message // by socket group
	now time.Time       // when this batch was read
}

func newShard(s *Server, socket *udp.Socket) *shard {
	sh := &shard{
		server:   s,
		socket:   socket,
		group:    s.sockets.find(socket.LocalAddr()),
		counters: new(shardCounters),
		in:       make([]udp.Message, batchSize),
		out:      make([][]udp.Message, len(s.sockets.groups)),
	}
	for i := range sh.out {
		sh.out[i] = make([]udp.Message, 0, batchSize)
	}
	return sh
}

// run forwards until the socket is closed. If the socket fails, the server ends, so
// that no relay seems to run that receives nothing.
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

// step reads and forwards one batch.
func (sh *shard) step() error {
	n, err := sh.socket.ReadBatch(sh.in)
	if err != nil {
		return err
	}
	for i := range sh.in[:n] {
		if m := &sh.in[i]; tunnel.IsAddress(m.Remote.Addr()) { // the sender has forged it
			sh.counters.dropped[DropWrongSource].Add(uint64(m.Count()))
			m.Data = nil
		}
	}
	sh.sortBatch(n)
	return nil
}

// sortBatch forwards the first n messages of in.
func (sh *shard) sortBatch(n int) {
	sh.now = time.Now()
	for i := range sh.in[:n] {
		sh.sort(&sh.in[i])
	}
	sh.flush()
}

// sort dispatches a message run by run: consecutive datagrams of a GRO train with the
// same ID share one decision.
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

// dispatch forwards, drops, or hands a run to the relay's own QUIC, by the table in the
// package comment.
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
		if !ok || to.counter == noCounter { // an Initial's ID is only for long headers
			sh.drop(r, DropUnknownID)
			return
		}
		sh.forward(r, &to)
	}
}

// dispatchLong dispatches a packet with a long header.
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
	// A dialer's Initial that arrives before the accepter has registered must
	// not start a handshake with the relay.
	if _, ok := sh.lookup(h.SrcID); ok {
		sh.drop(r, DropNoPeer)
		return
	}
	sh.control(r)
}

// lookup asks the store which leg is behind an ID, and the session whether it agrees.
func (sh *shard) lookup(b []byte) (route, bool) {
	id, err := cid.IDFrom(b)
	if err != nil || id.IsZero() {
		return route{}, false
	}
	sh.counters.lookups.Add(1)
	a, ok := sh.server.store.Get(id)
	if !ok {
		return route{}, false
	}
	return sh.server.sessions.route(&a)
}

// forward queues a run for the leg that owns its ID, if the run comes from the other
// leg of the same session.
func (sh *shard) forward(r *run, to *route) {
	dst, src := to.leg, to.leg.peer()
	dstAddr, srcAddr := dst.addr.Load(), src.addr.Load()
	if srcAddr == nil && dstAddr != nil && r.message.HopLimit != 1 {
		if sh.server.held.keep(r, dst, sh.now) {
			return
		}
		srcAddr = src.addr.Load() // it may have been registered meanwhile
	}
	if srcAddr == nil || dstAddr == nil {
		sh.drop(r, DropNoPeer)
		return
	}
	if r.message.HopLimit == 1 {
		sh.drop(r, DropHopLimit)
		return
	}
	from := fromLeg
	if srcAddr.remote != r.message.Remote {
		from = src.originOf(r.message.Remote, r.packets, sh.now)
	}
	if from == notFromLeg {
		sh.drop(r, DropWrongSource)
		return
	}
	switch {
	case to.counter == noCounter:
	case to.counter >= dst.due.Load(), to.counter < dst.offloadLow.Load() && dst.latePackets.Add(uint32(r.packets)) > lateBudget:
		sh.server.slider.hit(dst, to.counter)
	}
	if from == fromLeg {
		src.heardAt(sh.now)
	}
	sh.counters.packets.Add(uint64(r.packets))
	sh.counters.bytes.Add(uint64(len(r.data)))
	sh.queue(r, dstAddr)
}

// queue adds a run to what will be sent to dst, or to the queue of its tunnel. It lowers
// the hop limit by one, like a router, so that no packet circulates for ever between relays.
func (sh *shard) queue(r *run, dst *legAddr) {
	m := udp.Message{Data: r.data, Remote: dst.remote, Local: dst.local, ECN: r.message.ECN, HopLimit: r.message.HopLimit}
	if m.HopLimit > 0 {
		m.HopLimit--
	}
	if r.packets > 1 {
		m.SegmentSize = r.message.SegmentSize
	}
	if dst.tunnel != nil {
		if dropped := dst.tunnel.queue.Push(&m); dropped > 0 {
			sh.counters.dropped[DropTunnel].Add(uint64(dropped))
		}
		return
	}
	sh.out[dst.group] = append(sh.out[dst.group], m)
}

// control hands a run to the relay's own QUIC.
func (sh *shard) control(r *run) {
	m := *r.message
	m.Data = r.data
	dropped := sh.server.control.receive(&m)
	sh.counters.control.Add(uint64(r.packets - dropped))
	if dropped > 0 {
		sh.counters.dropped[DropControlQueue].Add(uint64(dropped))
	}
}

func (sh *shard) drop(r *run, why Reason) {
	sh.counters.dropped[why].Add(uint64(r.packets))
}

// flush sends the queued messages. The socket counts what the system refuses.
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
