package p2p

import (
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/quicway/quicway/internal/control"
)

// A probe tests whether packets get from one address to another. Probes are not part of
// QUIC, because QUIC would spend one of its few connection IDs on each path that may not
// exist. The first byte of a probe is not one of QUIC's (RFC 9443 §3).
//
//	Probe {
//	  Type (8) = 0x1c,
//	  Tag (64),        // of the receiving side
//	  Sequence (64),   // the nonce
//	  Sealed (..),     // ChaCha20-Poly1305; the above is authenticated too
//	}
//	Ping { Kind (8) = 1, Padding (..) }
//	Pong { Kind (8) = 2, Sequence (64), Address (144) }
//
// Keys and tags come from the TLS connection, so that only the peer can make a probe.
// Each probe is accepted once.
const (
	probeType   = 0x1c
	probeHeader = 1 + 8 + 8

	probePing = 1
	probePong = 2

	addressSize = 16 + 2
)

// probeTag says to which connection of an endpoint a probe belongs.
type probeTag [8]byte

// probeLabel names the exporter (RFC 8446 §7.5) from which both sides derive keys and
// tags.
const probeLabel = "EXPORTER-quicway-probe"

// errProbe: a datagram is not a probe of the peer's, or a repeated one.
var errProbe = errors.New("not a probe")

// prober seals and opens the probes of one side. It is not safe for concurrent
// use.
type prober struct {
	own, peer probeTag
	seal      cipher.AEAD
	open      cipher.AEAD
	sequence  uint64
	seen      replayWindow
	buf       []byte
}

// newProber derives the keys and tags of the side with a role.
func newProber(state tls.ConnectionState, role control.Role) (*prober, error) {
	const each = chacha20poly1305.KeySize + len(probeTag{})
	secret, err := state.ExportKeyingMaterial(probeLabel, nil, 2*each)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	p := &prober{}
	for i := range control.Role(2) {
		part := secret[int(i)*each:][:each]
		aead, err := chacha20poly1305.New(part[:chacha20poly1305.KeySize])
		if err != nil {
			return nil, err
		}
		tag := probeTag(part[chacha20poly1305.KeySize:])
		if i == role {
			p.seal, p.own = aead, tag
		} else {
			p.open, p.peer = aead, tag
		}
	}
	return p, nil
}

// probe is what the peer has sent.
type probe struct {
	kind     byte
	sequence uint64
	answers  uint64         // pong: the sequence number of the ping
	observed netip.AddrPort // pong: the address that the ping came from
}

// sealPing makes a ping in a datagram of a size, and returns its sequence number. Size 0
// is the smallest, which is that of a pong, so that the answer is never larger than the
// ping. The bytes are valid until the next call.
func (p *prober) sealPing(size int) ([]byte, uint64) {
	b := append(p.begin(), probePing)
	padding := max(8+addressSize, size-len(b)-chacha20poly1305.Overhead)
	b = append(b, make([]byte, padding)...)
	return p.finish(b), p.sequence
}

// sealPong makes the answer to a ping that has come from an address. The bytes are
// valid until the next call.
func (p *prober) sealPong(ping uint64, from netip.AddrPort) []byte {
	b := append(p.begin(), probePong)
	b = binary.BigEndian.AppendUint64(b, ping)
	return p.finish(appendAddress(b, from))
}

func (p *prober) begin() []byte {
	p.sequence++
	b := append(p.buf[:0], probeType)
	b = append(b, p.peer[:]...)
	return binary.BigEndian.AppendUint64(b, p.sequence)
}

func (p *prober) finish(b []byte) []byte {
	p.buf = p.seal.Seal(b[:probeHeader], probeNonce(b), b[probeHeader:], b[:probeHeader])
	return p.buf
}

// probeNonce returns the nonce, which is the sequence number.
func probeNonce(b []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSize)
	copy(nonce[4:], b[probeHeader-8:probeHeader])
	return nonce
}

// tagOf returns the tag of a datagram. ok is false if it cannot be a probe.
func tagOf(b []byte) (tag probeTag, ok bool) {
	if len(b) < probeHeader || b[0] != probeType {
		return tag, false
	}
	return probeTag(b[1:]), true
}

// parse verifies and decrypts a probe. It changes b.
func (p *prober) parse(b []byte) (probe, error) {
	if tag, ok := tagOf(b); !ok || tag != p.own {
		return probe{}, errProbe
	}
	out := probe{sequence: binary.BigEndian.Uint64(b[probeHeader-8:])}
	if p.seen.has(out.sequence) {
		return probe{}, errProbe
	}
	payload, err := p.open.Open(b[probeHeader:probeHeader], probeNonce(b), b[probeHeader:], b[:probeHeader])
	if err != nil || len(payload) == 0 {
		return probe{}, errProbe
	}
	p.seen.add(out.sequence)
	out.kind = payload[0]
	if out.kind != probePong {
		return out, nil
	}
	if len(payload) < 1+8+addressSize {
		return probe{}, errProbe
	}
	out.answers = binary.BigEndian.Uint64(payload[1:])
	out.observed = addressFrom(payload[9:])
	return out, nil
}

// appendAddress appends 18 bytes: an IPv6 or IPv4-mapped address, and a port.
func appendAddress(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().As16()
	b = append(b, ip[:]...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// addressFrom reads the 18 bytes of appendAddress.
func addressFrom(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
}

// replayWindow remembers which of the latest 64 sequence numbers have been used.
type replayWindow struct {
	highest uint64
	seen    uint64 // bit n stands for highest-n
}

func (w *replayWindow) has(n uint64) bool {
	if n > w.highest {
		return false
	}
	return w.highest-n >= 64 || w.seen>>(w.highest-n)&1 == 1
}

func (w *replayWindow) add(n uint64) {
	if n > w.highest {
		w.seen <<= min(n-w.highest, 64)
		w.highest = n
	}
	w.seen |= 1 << (w.highest - n)
}
