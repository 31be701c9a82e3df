package p2p

import (
	"bytes"
	"crypto/hmac"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// The accepter's hello on the signalling stream answers the dialer's, and so comes a round
// trip after the handshake. An accepter that has nothing more to decide about the dialer
// therefore sends the same hello behind the first flight of its handshake, in a datagram
// that looks like a packet with a short header:
//
//	Early Hello {
//	  First (8) = 0b01......,
//	  Destination Connection ID (96), // of the dialer's first flight
//	  Type (8) = 0x1a,
//	  Version (i), Proof Length (i), Proof (..), // as in a hello
//	}
//
// The dialer believes it only when TLS has proved the accepter's key, and the proof fits
// the connection. It is not repeated: if it is lost, or the accepter is an old one, the
// hello on the stream takes its place. An old dialer drops it as a packet that it cannot
// decrypt.
const (
	earlyHelloType = 0x1a
	// maxEarlyHello bounds an early hello. It leaves room for later fields.
	maxEarlyHello = 128
	// maxEarlyHellos bounds the datagrams that are kept until TLS has proved the peer.
	maxEarlyHellos = 4
)

// sendEarlyHello sends the accepter's hello to the dialer that has made an offer. It may
// be called when the server's flight of the TLS handshake is complete, from which the
// proof follows.
func (l *link) sendEarlyHello(qc *quic.Conn, o *Offer) error {
	to, err := o.dialerID()
	if err != nil {
		return err
	}
	proof, err := offerProof(qc.ConnectionState().TLS, o.secret)
	if err != nil {
		return err
	}
	b := append([]byte{shortHeader}, to...)
	b = append(append(b, earlyHelloType), hello{version: signalVersion, proof: proof}.frame().payload...)
	m := &udp.Message{Data: b, Remote: l.remote()}
	l.answer.keep(m)
	return l.mux.write(m)
}

// dialerID is the connection ID that the dialer has chosen for itself.
func (o *Offer) dialerID() ([]byte, error) {
	h, err := o.flight[0].parse()
	if err == nil && len(h.SrcID) != cid.Len {
		err = fmt.Errorf("%w: its source connection ID has %d bytes, want %d", ErrMalformedOffer, len(h.SrcID), cid.Len)
	}
	return h.SrcID, err
}

// earlyHellos are datagrams that look like early hellos, until the handshake is complete.
// quic-go gets them as well: one packet of its own in 256 looks so.
type earlyHellos struct {
	arrived chan []byte // their payloads
}

func newEarlyHellos() *earlyHellos {
	return &earlyHellos{arrived: make(chan []byte, maxEarlyHellos)}
}

// catch keeps copies of the early hellos in a run, as long as there is room.
func (h *earlyHellos) catch(run *udp.Message) {
	for b := range run.Segments() {
		if len(h.arrived) == cap(h.arrived) {
			return
		}
		if len(b) <= envelopeSize || len(b) > maxEarlyHello || wire.IsLong(b[0]) || b[envelopeSize] != earlyHelloType {
			continue
		}
		select {
		case h.arrived <- bytes.Clone(b[envelopeSize+1:]):
		default:
		}
	}
}

// proves says whether the payload of an early hello has the proof that is wanted.
func proves(payload, want []byte) bool {
	h, err := parseHello(frame{frameHello, payload})
	return err == nil && hmac.Equal(h.proof, want)
}
