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

// A relay forwards nothing but packets of QUIC, which it tells by their connection IDs.
// What the peers have to say to each other past QUIC by that way is in an envelope,
// which looks like a short header:
//
//	Envelope {
//	  First (8) = 0b01......,
//	  Destination Connection ID (96), // one that the receiving side's quic-go has made
//	  Probe or Piece (..),
//	}
//	Piece {
//	  Type (8) = 0x1d,
//	  Tag (64),       // as of a probe
//	  Number (31), Second (1),
//	  Data (..),      // half of a packet
//	}
//
// Behind the ID a packet of QUIC is encrypted. It looks like an envelope once in 2^72
// packets, and is lost then.
const (
	envelopeSize = 1 + cid.Len
	pieceType    = 0x1d
	pieceHeader  = envelopeSize + 1 + len(probeTag{}) + 4
	// smallestEnvelope is what is read to tell one.
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

// anyOwn says whether one of the datagrams of a run is.
func (e *envelopes) anyOwn(run *udp.Message) bool {
	for b := range run.Segments() {
		if e.isOwn(b) {
			return true
		}
	}
	return false
}

// address takes note of the ID that quic-go sends to.
func (l *link) address(packet []byte) {
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
	l.address(m.Data)
	if size.note(largest) {
		l.stir()
	}
	if largest <= baseSize || size.carries(largest) {
		err := l.mux.write(m)
		if largest <= baseSize || !udp.IsMessageTooLong(err) {
			return err
		}
		size.limit.Store(baseSize)
		size.tooLong.Store(true)
		l.stir()
	}
	return l.split(m, size)
}

// stir has the pathfinder look at the sizes of paths.
func (l *link) stir() {
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
			last = keep(last, l.mux.write(&one))
		case size.refuses(len(b)):
		case whole:
			last = keep(last, l.mux.write(&one))
		default:
			last = keep(last, l.sendPieces(&one, envelopes.peer))
		}
	}
	return last
}

// keep returns the newer error, if there is one.
func keep(last, err error) error {
	if err != nil {
		return err
	}
	return last
}

// pieceBuffers are what pieces are made in.
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
		last = keep(last, l.mux.write(&piece))
	}
	return last
}

// maxHalves bounds the halves that wait for the other one.
const maxHalves = 256

// pieces puts packets together again.
type pieces struct {
	sent atomic.Uint32

	mu     sync.Mutex // guards the following
	halves map[uint32][]byte
	order  []uint32 // their numbers, the oldest first
}

// add takes a piece. It returns the packet, until the next call, if the other piece
// has been there. Whoever has seen a tag can send pieces, but what is put together is
// for quic-go to open.
func (p *pieces) add(b []byte) []byte {
	if len(b) <= pieceHeader {
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

// holdLocked keeps a half. The oldest makes room.
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
