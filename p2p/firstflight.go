package p2p

import (
	"slices"
	"sync"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/wire"
)

// maxFlight bounds the datagrams of a first flight.
const maxFlight = 8

// firstFlight catches the first datagrams of a dialer's quic-go, until the ClientHello in
// them is complete: two with the post-quantum key share that Go offers by default, one
// without it. They go into the offer, because the accepter is not at the relay yet.
type firstFlight struct {
	done chan struct{} // closed when the ClientHello is complete

	mu     sync.Mutex // guards the following
	over   bool
	keys   *wire.InitialKeys
	hello  wire.CryptoStream
	flight []initial
}

// initial is one datagram of the first flight, decrypted. Its padding compresses well
// then. Encrypting it again gives the same bytes, because the keys are derived from the
// connection ID (RFC 9001 §5.2) and AES-GCM uses no randomness.
type initial struct {
	header  []byte // up to and with the packet number, unprotected
	payload []byte
}

func newFirstFlight() *firstFlight { return &firstFlight{done: make(chan struct{})} }

// catch keeps a datagram that would be sent. It returns false if the datagram is not part
// of the first flight.
func (f *firstFlight) catch(datagram []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	in, ok := f.openLocked(datagram)
	if !ok {
		return false
	}
	f.flight = append(f.flight, in)
	for frame, err := range wire.CryptoFrames(in.payload) {
		if err != nil || f.hello.Add(frame.Offset, frame.Data) != nil {
			break
		}
	}
	if f.hello.Complete() || len(f.flight) == maxFlight {
		f.over = true
		close(f.done)
	}
	return true
}

// openLocked decrypts a datagram that is one Initial packet.
func (f *firstFlight) openLocked(datagram []byte) (initial, bool) {
	h, err := wire.Parse(datagram, cid.Len)
	if err != nil || h.Type != wire.Initial || len(h.Packet) != len(datagram) {
		return initial{}, false
	}
	if f.keys == nil {
		if f.keys, err = wire.NewInitialKeys(h.Version, h.DstID, wire.Client); err != nil {
			return initial{}, false
		}
	}
	opened, err := f.keys.Open(nil, &h)
	if err != nil {
		return initial{}, false
	}
	return initial{header: opened.Header, payload: opened.Payload}, true
}

// caught returns the datagrams. It is called after done is closed.
func (f *firstFlight) caught() []initial {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flight
}

// parse parses the header, whose Length field includes the AEAD tag.
func (in *initial) parse() (wire.Header, error) {
	return wire.Parse(append(slices.Clone(in.header), make([]byte, len(in.payload)+wire.Overhead)...), cid.Len)
}

// seal encrypts the datagram again, as the dialer's quic-go has sent it.
func (in *initial) seal() ([]byte, error) {
	h, err := in.parse()
	if err != nil {
		return nil, err
	}
	keys, err := wire.NewInitialKeys(h.Version, h.DstID, wire.Client)
	if err != nil {
		return nil, err
	}
	return keys.Seal(nil, in.header, in.payload)
}
