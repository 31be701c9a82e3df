package monitor

import (
	"math/bits"

	"github.com/quicway/quicway/internal/wire"
)

// maxHistory is the limit of letters, as in Zeek (QUIC::max_history_length).
const maxHistory = 100

// usualHistory is the number of letters of a handshake, and of some minutes after it.
const usualHistory = 16

// Letters of the history, as in Zeek's quic.log.
const (
	sawInitial   = 'I'
	sawHandshake = 'H'
	sawZeroRTT   = 'Z'
	sawRetry     = 'R'
	sawHello     = 'S' // complete: a ClientHello or a ServerHello
	sawClose     = 'C' // a CONNECTION_CLOSE frame in an Initial
	sawUnknown   = 'U' // a version that is not read
	sawDiscarded = 'X' // bytes after a packet that are none
	sawShort     = 'O' // the first, second, fourth, eighth and so on short header of a side
)

// history is what was seen of a connection, in its order.
type history struct {
	letters []byte
	shorts  [2]uint64 // short headers, by the side that has sent them
}

// add adds a letter: a capital for the client, a small one for the server.
func (h *history) add(from wire.Side, letter byte) {
	if len(h.letters) == maxHistory {
		return
	}
	if from == wire.Server {
		letter |= caseBit
	}
	if h.letters == nil {
		h.letters = make([]byte, 0, usualHistory)
	}
	h.letters = append(h.letters, letter)
}

// caseBit makes a small letter of a capital.
const caseBit = 'a' - 'A'

// addLong adds a packet with a long header.
func (h *history) addLong(from wire.Side, kind wire.Type) {
	switch kind {
	case wire.Initial:
		h.add(from, sawInitial)
	case wire.Handshake:
		h.add(from, sawHandshake)
	case wire.ZeroRTT:
		h.add(from, sawZeroRTT)
	case wire.Retry:
		h.add(from, sawRetry)
	}
}

// addShort adds a packet with a short header. Only few of them cost more than this count.
func (h *history) addShort(from wire.Side) {
	h.shorts[from]++
	if n := h.shorts[from]; n&(n-1) == 0 {
		h.add(from, sawShort)
	}
}

// addShorts adds n packets with short headers, which were counted together.
func (h *history) addShorts(from wire.Side, n uint64) {
	before := bits.Len64(h.shorts[from])
	h.shorts[from] += n
	for range bits.Len64(h.shorts[from]) - before {
		h.add(from, sawShort)
	}
}

// swapSides exchanges client and server.
func (h *history) swapSides() {
	for i := range h.letters {
		h.letters[i] ^= caseBit
	}
	h.shorts[0], h.shorts[1] = h.shorts[1], h.shorts[0]
}

// String returns the letters.
func (h *history) String() string { return string(h.letters) }
