package p2p

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/wire"
)

// offerPrefix begins the text form of every offer, with its version.
const offerPrefix = "quicway1."

// Limits of an offer that is parsed.
const (
	maxOfferText  = 16 << 10
	maxOfferBytes = 32 << 10 // decompressed
	maxAddr       = 256
	maxToken      = 256
	maxPacket     = 1500
	maxExpiry     = 1 << 40 // Unix seconds
	// minDatagram and minInitialID are required of a client's first flight (RFC 9000
	// §14.1, §7.2). quic-go silently drops datagrams that do not meet them.
	minDatagram  = 1200
	minInitialID = 8
)

// offerSecret is known to those who have the offer. The relay does not know it if the
// offer does not go through the mailbox.
type offerSecret [16]byte

// Offer invites a peer to one connection. It holds the first flight of the dialer's QUIC
// handshake, the relay's address, and a token for answering once. Its text form is a
// single line of about 700 bytes, or 2.4 kB with post-quantum key exchange, for a push
// message, a chat or a QR code.
//
// An offer is a secret: the first one who answers it is the peer, unless the dialer has
// named a [PeerID]. The zero Offer is not valid.
type Offer struct {
	session control.SessionID
	dialer  PeerID
	relay   Relay // no Token, no TLS
	instead Relay // the relay to try if the session is not at relay; not part of the text
	join    string
	secret  offerSecret
	expires time.Time
	flight  []initial
}

// DeliverFunc brings an offer to the peer. It returns when it has done so, or an error if
// it cannot. The peer may answer before, and Dial return. ctx is done when Dial fails, the
// offer expires, or the endpoint is closed, and not yet when the function returns. The
// function must return soon after ctx is done, because [Endpoint.Close] waits for it.
type DeliverFunc func(ctx context.Context, offer Offer) error

// Dialer returns the ID of the dialer.
func (o Offer) Dialer() PeerID { return o.dialer }

// Relay returns the relay that the connection starts through, without a token.
func (o Offer) Relay() Relay { return o.relay }

// Expires returns when the offer expires, by the dialer's clock, to the second.
func (o Offer) Expires() time.Time { return o.expires }

// String returns the text form, or "invalid offer" for the zero Offer.
func (o Offer) String() string {
	text, err := o.MarshalText()
	if err != nil {
		return "invalid offer"
	}
	return string(text)
}

// ParseOffer reads the text form. Space around it is ignored. For any other text it
// returns an error that wraps ErrMalformedOffer. It does not check whether the offer has
// expired.
func ParseOffer(text string) (Offer, error) {
	var o Offer
	err := o.UnmarshalText([]byte(text))
	return o, err
}

// MarshalText implements [encoding.TextMarshaler]. It returns ErrMalformedOffer for the
// zero Offer.
func (o Offer) MarshalText() ([]byte, error) {
	if len(o.flight) == 0 {
		return nil, fmt.Errorf("p2p: %w: it is empty", ErrMalformedOffer)
	}
	packed, err := compress(o.appendBinary(nil))
	if err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.AppendEncode([]byte(offerPrefix), packed), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. See [ParseOffer].
func (o *Offer) UnmarshalText(text []byte) error {
	offer, err := parseOffer(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("p2p: %w: %w", ErrMalformedOffer, err)
	}
	*o = offer
	return nil
}

// appendBinary appends
//
//	Session (128), Dialer (256), Pin (256), Secret (128), Expires (64),
//	Relay Address (length, bytes), Join Token (length, bytes),
//	then for each Initial: Header (length, bytes), Payload (length, bytes)
//
// where lengths are variable-length integers.
func (o *Offer) appendBinary(b []byte) []byte {
	b = append(b, o.session[:]...)
	b = append(b, o.dialer[:]...)
	b = append(b, o.relay.Pin[:]...)
	b = append(b, o.secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.expires.Unix()))
	b = appendBytes(b, []byte(o.relay.Addr))
	b = appendBytes(b, []byte(o.join))
	for _, in := range o.flight {
		b = appendBytes(b, in.header)
		b = appendBytes(b, in.payload)
	}
	return b
}

func appendBytes(b, data []byte) []byte {
	b = quicvarint.Append(b, uint64(len(data)))
	return append(b, data...)
}

var errTruncated = errors.New("it is truncated")

func parseOffer(text string) (Offer, error) {
	packed, ok := strings.CutPrefix(text, offerPrefix)
	switch {
	case len(text) > maxOfferText:
		return Offer{}, fmt.Errorf("it has more than %d bytes", maxOfferText)
	case !ok:
		return Offer{}, fmt.Errorf("it does not begin with %q", offerPrefix)
	}
	compressed, err := base64.RawURLEncoding.Strict().DecodeString(packed)
	if err != nil {
		return Offer{}, fmt.Errorf("decode base64: %w", err)
	}
	b, err := decompress(compressed, maxOfferBytes+1)
	if err != nil {
		return Offer{}, fmt.Errorf("decompress: %w", err)
	}
	if len(b) > maxOfferBytes {
		return Offer{}, fmt.Errorf("it decompresses to more than %d bytes", maxOfferBytes)
	}
	return parseOfferBinary(b)
}

func parseOfferBinary(b []byte) (Offer, error) {
	var o Offer
	for _, field := range [][]byte{o.session[:], o.dialer[:], o.relay.Pin[:], o.secret[:]} {
		if len(b) < len(field) {
			return Offer{}, errTruncated
		}
		b = b[copy(field, b):]
	}
	if len(b) < 8 {
		return Offer{}, errTruncated
	}
	expires := binary.BigEndian.Uint64(b)
	if expires > maxExpiry {
		return Offer{}, errors.New("its expiry is out of range")
	}
	o.expires = time.Unix(int64(expires), 0)
	addr, b, err := cutBytes(b[8:], maxAddr)
	if err != nil {
		return Offer{}, err
	}
	join, b, err := cutBytes(b, maxToken)
	if err != nil {
		return Offer{}, err
	}
	o.relay.Addr, o.join = string(addr), string(join)
	if o.flight, err = parseFlight(b); err != nil {
		return Offer{}, err
	}
	return o, o.check()
}

// check returns an error if QUIC would not answer the first flight.
func (o *Offer) check() error {
	datagrams, err := o.datagrams()
	if err != nil {
		return err
	}
	for i, d := range datagrams {
		if len(d) < minDatagram {
			return fmt.Errorf("its packet %d has %d bytes, want %d", i, len(d), minDatagram)
		}
	}
	if !o.hasClientHello() {
		return errors.New("it holds no part of a ClientHello")
	}
	id, err := o.initialID()
	if err == nil && id.Len() < minInitialID {
		err = fmt.Errorf("its connection ID has %d bytes, want %d", id.Len(), minInitialID)
	}
	return err
}

// hasClientHello says whether the first flight holds a part of a ClientHello. The dialer
// sends missing parts again.
func (o *Offer) hasClientHello() bool {
	for i := range o.flight {
		for f, err := range wire.CryptoFrames(o.flight[i].payload) {
			if err == nil && len(f.Data) > 0 {
				return true
			}
		}
	}
	return false
}

func parseFlight(b []byte) ([]initial, error) {
	var flight []initial
	for len(b) > 0 {
		if len(flight) == maxFlight {
			return nil, fmt.Errorf("it has more than %d packets", maxFlight)
		}
		var in initial
		var err error
		if in.header, b, err = cutBytes(b, maxPacket); err != nil {
			return nil, err
		}
		if in.payload, b, err = cutBytes(b, maxPacket); err != nil {
			return nil, err
		}
		flight = append(flight, in)
	}
	if len(flight) == 0 {
		return nil, errors.New("it has no packets")
	}
	return flight, nil
}

// cutBytes reads a length and a field of that many bytes, at most max.
func cutBytes(b []byte, max int) (field, rest []byte, err error) {
	length, n, err := quicvarint.Parse(b)
	if err != nil || length > uint64(len(b)-n) {
		return nil, nil, errTruncated
	}
	if length > uint64(max) {
		return nil, nil, fmt.Errorf("it has a field of %d bytes, want at most %d", length, max)
	}
	return b[n : n+int(length)], b[n+int(length):], nil
}

// initialID is the random Destination Connection ID of the dialer's first flight.
func (o *Offer) initialID() (cid.ID, error) {
	dst, err := wire.DstID(o.flight[0].header, cid.Len)
	if err != nil {
		return cid.ID{}, fmt.Errorf("its first packet: %w", err)
	}
	return cid.IDFrom(dst)
}

// datagrams returns the first flight as the dialer's quic-go has sent it.
func (o *Offer) datagrams() ([][]byte, error) {
	var out [][]byte
	for i := range o.flight {
		datagram, err := o.flight[i].seal()
		if err != nil {
			return nil, fmt.Errorf("its packet %d: %w", i, err)
		}
		out = append(out, datagram)
	}
	return out, nil
}

// newSecret generates the secret of an offer.
func newSecret() offerSecret {
	var s offerSecret
	rand.Read(s[:])
	return s
}
