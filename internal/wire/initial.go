package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrProtection is returned if a packet was not protected with the keys.
var ErrProtection = errors.New("packet protection does not match")

// Side is the client or the server of a connection.
type Side uint8

// The sides.
const (
	Client Side = iota
	Server
)

// sampleLen is the length of the header protection sample (RFC 9001 §5.4.2).
const sampleLen = 16

// Overhead is how many bytes packet protection adds to a payload: the tag of the AEAD
// (RFC 9001 §5.3).
const Overhead = 16

// maxNumberLen is the maximum length of a packet number, in bytes.
const maxNumberLen = 4

// InitialKeys are the keys that protect the Initial packets of one side. They are derived from
// the Destination Connection ID of the client's first Initial, so everybody can have them.
// InitialKeys are safe for concurrent use.
type InitialKeys struct {
	aead cipher.AEAD
	hp   cipher.Block
	iv   [12]byte
}

// NewInitialKeys derives the keys of the packets that a side sends (RFC 9001 §5.2). It returns an
// error that wraps ErrInvalid if the version has no [Dialect].
func NewInitialKeys(v Version, dstID []byte, from Side) (*InitialKeys, error) {
	if v.Dialect() == NoDialect {
		return nil, fmt.Errorf("%w: the Initial keys of %v are not known", ErrInvalid, v)
	}
	return v.Dialect().InitialKeys(dstID, from)
}

// InitialKeys derives the keys of the packets that a side sends. It returns an error that wraps
// ErrInvalid for NoDialect.
func (d Dialect) InitialKeys(dstID []byte, from Side) (*InitialKeys, error) {
	if d == NoDialect || d >= numDialects {
		return nil, fmt.Errorf("%w: dialect %d has no Initial keys", ErrInvalid, d)
	}
	if len(dstID) > MaxIDLen {
		return nil, fmt.Errorf("%w: connection ID of %d bytes", ErrInvalid, len(dstID))
	}
	scheme := &derivations[d]
	initial := hkdfExtract(scheme.salt, dstID)
	label := "client in"
	if from == Server {
		label = "server in"
	}
	secret := expandLabel(&initial, label, "", sha256.Size)
	return newKeys(&secret, scheme.label)
}

// newKeys derives the keys from the secret of a side (RFC 9001 §5.1).
func newKeys(secret *[sha256.Size]byte, label string) (*InitialKeys, error) {
	const keyLen, ivLen = 16, 12
	key := expandLabel(secret, label, "key", keyLen)
	iv := expandLabel(secret, label, "iv", ivLen)
	hp := expandLabel(secret, label, "hp", keyLen)
	k := &InitialKeys{iv: [ivLen]byte(iv[:])}
	block, err := aes.NewCipher(key[:keyLen])
	if err != nil {
		return nil, err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	k.hp, err = aes.NewCipher(hp[:keyLen])
	return k, err
}

// Opened is an Initial packet whose protection was removed.
type Opened struct {
	// Header is the unprotected header, including the packet number.
	Header []byte
	// PacketNumber is the packet number as encoded in the packet: its low bits.
	PacketNumber uint64
	// Payload is the frames of the packet.
	Payload []byte
}

// Sampled says whether a packet is long enough to be protected: it has the sample of header protection
// (RFC 9001 §5.4.2). No keys open a packet that has not.
func (h *Header) Sampled() bool { return len(h.Packet) >= h.HeaderLen+maxNumberLen+sampleLen }

// Open removes the protection of an Initial packet (RFC 9001 §5.3, §5.4) that [Parse] has parsed.
// It appends the result to buf, which may be nil, and does not change the packet. It returns
// ErrProtection if the packet was protected with other keys, and ErrTruncated if the packet is
// too short. It takes the encoded packet number for the whole one, so a packet with a truncated
// packet number does not open.
func (k *InitialKeys) Open(buf []byte, h *Header) (Opened, error) {
	if !h.Sampled() {
		return Opened{}, ErrTruncated
	}
	start := h.HeaderLen
	mask := k.mask(h.Packet[start+maxNumberLen:])
	numberLen := int((h.First^mask[0]&0x0f)&3) + 1
	header := append(buf, h.Packet[:start+numberLen]...)[len(buf):]
	header[0] ^= mask[0] & 0x0f
	var number uint64
	for i := range numberLen {
		header[start+i] ^= mask[1+i]
		number = number<<8 | uint64(header[start+i])
	}
	nonce := k.nonce(number)
	plain, err := k.aead.Open(header, nonce[:], h.Packet[start+numberLen:], header)
	if err != nil {
		return Opened{}, ErrProtection
	}
	return Opened{Header: plain[:len(header):len(header)], PacketNumber: number, Payload: plain[len(header):]}, nil
}

// Seal is the inverse of [InitialKeys.Open]: it protects a packet with an unprotected header, which
// ends with the packet number, and a payload, and appends the packet to buf. The same input
// gives the same packet. Seal returns an error that wraps ErrInvalid if the header is not that of
// an Initial, or its length field does not fit the payload.
func (k *InitialKeys) Seal(buf, header, payload []byte) ([]byte, error) {
	if len(header) == 0 || len(payload) < maxNumberLen {
		return nil, ErrTruncated
	}
	numberLen := int(header[0]&3) + 1
	start := len(header) - numberLen
	if start < 1 {
		return nil, ErrTruncated
	}
	var number uint64
	for _, b := range header[start:] {
		number = number<<8 | uint64(b)
	}
	nonce := k.nonce(number)
	packet := append(buf, header...)[len(buf):]
	packet = k.aead.Seal(packet, nonce[:], payload, header)
	h, err := Version(binary.BigEndian.Uint32(packet[1:])).Dialect().Parse(packet)
	if err != nil || h.Type != Initial || h.HeaderLen != start || len(h.Packet) != len(packet) {
		return nil, fmt.Errorf("%w: header does not fit the payload", ErrInvalid)
	}
	mask := k.mask(packet[start+maxNumberLen:])
	packet[0] ^= mask[0] & 0x0f
	for i := range numberLen {
		packet[start+i] ^= mask[1+i]
	}
	return append(buf, packet...), nil
}

// mask returns the header protection mask for a sample (RFC 9001 §5.4.3).
func (k *InitialKeys) mask(sample []byte) (mask [aes.BlockSize]byte) {
	k.hp.Encrypt(mask[:], sample[:sampleLen])
	return mask
}

// nonce returns the AEAD's nonce for a packet number (RFC 9001 §5.3).
func (k *InitialKeys) nonce(number uint64) [12]byte {
	nonce := k.iv
	for i := range 8 {
		nonce[11-i] ^= byte(number >> (8 * i))
	}
	return nonce
}

// VerifyRetry says whether a Retry packet answers an Initial with the Destination Connection ID
// origDstID (RFC 9001 §5.8).
func VerifyRetry(h *Header, origDstID []byte) bool {
	return h.Version.Dialect().VerifyRetry(h, origDstID)
}

// VerifyRetry says whether a Retry packet that [Dialect.Parse] has parsed answers an Initial with
// the Destination Connection ID origDstID. A Retry before draft 25 has no integrity tag, so only
// the ID is checked.
func (d Dialect) VerifyRetry(h *Header, origDstID []byte) bool {
	if d == NoDialect || h.Type != Retry || len(origDstID) > MaxIDLen {
		return false
	}
	scheme := &derivations[d]
	if scheme.retryKey == nil {
		return len(origDstID) > 0 && bytes.Equal(h.OrigDstID, origDstID)
	}
	block, err := aes.NewCipher(scheme.retryKey)
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return false
	}
	pseudo := append([]byte{byte(len(origDstID))}, origDstID...)
	pseudo = append(pseudo, h.Packet[:len(h.Packet)-retryTagLen]...)
	return bytes.Equal(aead.Seal(nil, scheme.retryNonce, nil, pseudo), h.RetryTag)
}
