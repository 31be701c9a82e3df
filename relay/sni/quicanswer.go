package sni

import (
	"encoding/binary"
	"time"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// answers relays what upstreams have sent. The loop of the group calls it.
func (sh *shard) answers(batch []udp.Received) {
	now := monotime.Now()
	for i := range batch {
		r := &batch[i]
		f := r.Owner.(*flow)
		switch {
		case r.Err != nil:
			sh.mu.Lock()
			sh.upstreamError(f, r.Member, r.Err)
			sh.mu.Unlock()
		case len(r.Message.Data) == 0 || f.ended.Load() || f.member.Load() != r.Member:
		default:
			sh.answer(f, &r.Message, now)
		}
	}
	if len(sh.back) > 0 {
		_ = sh.socket.WriteBatch(sh.back) // the socket counts what the system refuses
		clear(sh.back)
		sh.back = sh.back[:0]
	}
}

// answer relays a message to the client of a flow.
func (sh *shard) answer(f *flow, m *udp.Message, now int64) {
	if m.HopLimit == 1 {
		sh.relay.counters.drop(DropHopLimit, m.Count())
		return
	}
	if !f.answered.Load() {
		sh.firstAnswer(f)
	}
	if wire.IsLong(m.Data[0]) || !f.confirmed.Load() {
		for datagram := range m.Segments() {
			sh.hear(f, datagram)
		}
	}
	data := m.Data
	if !f.confirmed.Load() {
		data = sh.within(f, m)
	}
	if len(data) == 0 {
		return
	}
	f.active.Store(now)
	f.fromUpstream.Add(uint64(len(data)))
	out := udp.Message{Data: data, SegmentSize: m.SegmentSize, Remote: f.client, Local: f.relay, ECN: m.ECN, HopLimit: m.HopLimit}
	if out.HopLimit > 0 {
		out.HopLimit--
	}
	sh.fromUpstreams.add(uint64(out.Count()), uint64(len(data)))
	sh.back = append(sh.back, out)
}

// firstAnswer takes the first datagram of the upstream that an attempt has asked: the attempt
// stays there.
func (sh *shard) firstAnswer(f *flow) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f.ended.Load() || f.attempt == nil {
		return
	}
	f.attempt = nil
	f.answered.Store(true)
	now := time.Now()
	f.at.heard(now)
	sh.relay.table.mu.Lock()
	f.conn.answered = true
	sh.relay.table.mu.Unlock()
	sh.relay.counters.upstreamTime.add(now.Sub(f.asked))
}

// within returns the datagrams of a message that may be sent to a client that is not confirmed.
func (sh *shard) within(f *flow, m *udp.Message) []byte {
	n, dropped := 0, 0
	for datagram := range m.Segments() {
		if dropped > 0 || !f.pay(len(datagram)) {
			dropped++
			continue
		}
		n += len(datagram)
		if turn := turnOf(len(datagram)); f.turn.Load() < turn {
			f.turn.Store(turn)
		}
	}
	if dropped > 0 {
		sh.relay.counters.drop(DropAmplification, dropped)
	}
	return m.Data[:n]
}

func turnOf(size int) int32 {
	if size >= minInitial {
		return turnFull
	}
	return turnSmall
}

// hear learns the connection ID that the upstream has chosen from a long header of any version
// (RFC 8999 §5.1).
func (sh *shard) hear(f *flow, datagram []byte) {
	if len(datagram) < 7 || !wire.IsLong(datagram[0]) {
		return
	}
	version := wire.Version(binary.BigEndian.Uint32(datagram[1:]))
	h, err := dialectOf(version).Parse(datagram)
	if err != nil || version == wire.VersionNegotiation || len(h.SrcID) > wire.MaxIDLen {
		return
	}
	id := idOf(h.SrcID)
	if id == f.heard && h.Type != wire.Initial {
		return
	}
	f.heard = id
	if h.Type != wire.Retry { // the server chooses again after a Retry
		f.conn.idLen.Store(int32(id.len))
	}
	t := sh.relay.table
	t.mu.Lock()
	t.learnLocked(f.conn, id, true, f)
	t.mu.Unlock()
}
