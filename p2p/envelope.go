package p2p

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// A relay forwards only QUIC packets, by their connection IDs. Other datagrams of the
// peers go through the relay in an envelope, which looks like a packet with a short
// header:
//
//	Envelope {
//	  First (8) = 0b01......,
//	  Destination Connection ID (96), // issued by the receiving side
//	  Probe or Piece (..),
//	}
//	Piece {
//	  Type (8) = 0x1d,
//	  Tag (64),       // as of a probe
//	  Number (31), Second (1),
//	  Data (..),      // half of a packet
//	}
//
// A QUIC packet is encrypted after the ID. One in 2^72 looks like an envelope, and is
// lost.
const (
	envelopeSize = 1 + cid.Len
	pieceType    = 0x1d
	pieceHeader  = envelopeSize + 1 + len(probeTag{}) + 4
	// smallestEnvelope is the size up to the end of the tag.
	smallestEnvelope = envelopeSize + 1 + len(probeTag{})
	shortHeader      = 0x40
)

// envelopes is what a link needs to send and recognize envelopes.
type envelopes struct {
	own, peer probeTag
	finder    *pathfinder
}

// isOwn says whether a datagram is an envelope for this side.
func (e *envelopes) isOwn(b []byte) bool {
	return len(b) >= smallestEnvelope && b[envelopeSize]&^1 == probeType &&
		probeTag(b[envelopeSize+1:]) == e.own
}

// anyOwn says whether any datagram of a run is an envelope for this side.
func (e *envelopes) anyOwn(run *udp.Message) bool {
	for b := range run.Segments() {
		if e.isOwn(b) {
			return true
		}
	}
	return false
}

// notePeerID takes note of the peer's connection ID that quic-go uses.
func (l *link) notePeerID(packet []byte) {
	if len(packet) < envelopeSize || wire.IsLong(packet[0]) {
		return
	}
	if old := l.peerID.Load(); old == nil || *old != [cid.Len]byte(packet[1:]) {
		id := [cid.Len]byte(packet[1:])
		l.peerID.Store(&id)
	}
}

// sendEnvelope sends a probe through the relay. It does nothing until the peer's
// connection ID is known. The only error is the system's EMSGSIZE.
func (l *link) sendEnvelope(probe []byte) error {
	id := l.peerID.Load()
	if id == nil {
		return nil
	}
	b := make([]byte, 0, envelopeSize+len(probe))
	b = append(append(append(b, shortHeader), id[:]...), probe...)
	return l.mux.write(&udp.Message{Data: b, Remote: l.remote()})
}

// openEnvelopes takes the envelopes out of a run. The rest is for quic-go.
func (l *link) openEnvelopes(run *udp.Message, e *envelopes) {
	one := *run
	one.SegmentSize = 0
	for b := range run.Segments() {
		one.Data = b
		switch {
		case !e.isOwn(b):
			l.accept(&one)
		case b[envelopeSize] == pieceType:
			if one.Data = l.pieces.add(b); one.Data != nil {
				l.accept(&one)
			}
		case !l.isRelay(run.Remote) || !e.finder.receive(b[envelopeSize:], netip.AddrPort{}):
			l.mux.unsorted.Add(1)
		}
	}
}

// carry sends what quic-go writes along a path. It splits packets that are too large for
// the path.
func (l *link) carry(m *udp.Message, size *pathSize) error {
	largest := len(m.Data)
	if m.Count() > 1 {
		largest = m.SegmentSize
	}
	l.notePeerID(m.Data)
	if size.note(largest) {
		l.checkSize()
	}
	if largest <= baseSize || size.carries(largest) {
		err := l.mux.writeAsQUIC(m)
		if largest <= baseSize || !udp.IsMessageTooLong(err) {
			return err
		}
		size.limit.Store(baseSize)
		size.tooLong.Store(true)
		l.checkSize()
	}
	return l.split(m, size)
}

// checkSize has the pathfinder measure the path in use.
func (l *link) checkSize() {
	if e := l.envelopes.Load(); e != nil {
		notify(e.finder.sized)
	}
}

// split sends datagrams one by one. It sends those that the path does not carry in two
// pieces, if the peer can join them.
func (l *link) split(m *udp.Message, size *pathSize) error {
	envelopes := l.envelopes.Load()
	whole := envelopes == nil || !l.peerReadsEnvelopes.Load()
	one := *m
	one.SegmentSize = 0
	var last error
	for b := range m.Segments() {
		one.Data = b
		switch {
		case size.carries(len(b)) || wire.IsLong(b[0]):
			last = latest(last, l.mux.write(&one))
		case size.refuses(len(b)):
		case whole:
			last = latest(last, l.mux.write(&one))
		default:
			last = latest(last, l.sendPieces(&one, envelopes.peer))
		}
	}
	return last
}

// latest returns the newer error, if there is one.
func latest(last, err error) error {
	if err != nil {
		return err
	}
	return last
}

// pieceBuffers are buffers for pieces.
var pieceBuffers = sync.Pool{New: func() any { return new([pieceHeader + fullSize]byte) }}

// sendPieces sends a packet as two halves.
func (l *link) sendPieces(m *udp.Message, peer probeTag) error {
	buf := pieceBuffers.Get().(*[pieceHeader + fullSize]byte)
	defer pieceBuffers.Put(buf)
	packet := m.Data
	if len(packet) > fullSize {
		return l.mux.write(m)
	}
	number := l.pieces.sent.Add(1) << 1
	half := (len(packet) + 1) / 2
	piece := *m
	var last error
	for i, part := range [][]byte{packet[:half], packet[half:]} {
		b := append(buf[:0], shortHeader)
		b = append(append(b, packet[1:envelopeSize]...), pieceType)
		b = append(b, peer[:]...)
		b = binary.BigEndian.AppendUint32(b, number|uint32(i))
		piece.Data = append(b, part...)
		last = latest(last, l.mux.write(&piece))
	}
	return last
}

// maxHalves bounds the halves of one link that wait for the other half, and maxHalf their size
// in bytes.
const (
	maxHalves = 256
	maxHalf   = (fullSize + 1) / 2
)

// pieces joins the halves of packets.
type pieces struct {
	sent atomic.Uint32

	mu     sync.Mutex // guards the following
	halves map[uint32][]byte
	order  []uint32 // their numbers, the oldest first
}

// add takes a piece. It returns the packet if the other piece has come before, and nil
// otherwise. An attacker who has seen a tag can send pieces, but quic-go discards a packet
// that it cannot decrypt.
func (p *pieces) add(b []byte) []byte {
	if len(b) <= pieceHeader || len(b) > pieceHeader+maxHalf {
		return nil
	}
	number, data := binary.BigEndian.Uint32(b[pieceHeader-4:]), b[pieceHeader:]
	p.mu.Lock()
	defer p.mu.Unlock()
	other, ok := p.halves[number^1]
	if !ok {
		p.holdLocked(number, data)
		return nil
	}
	delete(p.halves, number^1)
	first, second := other, data
	if number&1 == 0 {
		first, second = data, other
	}
	return append(append(make([]byte, 0, len(first)+len(second)), first...), second...)
}

// holdLocked keeps a half. If there are too many, it drops the oldest.
func (p *pieces) holdLocked(number uint32, data []byte) {
	if p.halves == nil {
		p.halves = make(map[uint32][]byte)
	}
	if _, ok := p.halves[number]; ok {
		return
	}
	if len(p.order) == maxHalves {
		delete(p.halves, p.order[0])
		p.order = append(p.order[:0], p.order[1:]...)
	}
	p.order = append(p.order, number)
	p.halves[number] = append([]byte(nil), data...)
}
