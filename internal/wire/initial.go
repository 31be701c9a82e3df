package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrProtection: a packet does not open with the keys at hand.
var ErrProtection = errors.New("packet protection does not match")

// Side is an end of a connection.
type Side uint8

// The sides.
const (
	Client Side = iota
	Server
)

// sampleLen is the length of the header protection sample (RFC 9001 §5.4.2).
const sampleLen = 16

// Overhead is what protection adds to a payload: the tag of the AEAD (RFC 9001
// §5.3).
const Overhead = 16

// maxNumberLen is the longest encoding of a packet number.
const maxNumberLen = 4

// derivation is what the Initial keys of a version are made with.
type derivation struct {
	salt       []byte
	label      string // before "key", "iv" and "hp"
	retryKey   []byte
	retryNonce []byte
}

var derivations = map[Version]derivation{
	Version1: { // RFC 9001 §5.2, §5.8
		salt:       []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
		label:      "quic ",
		retryKey:   []byte{0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e},
		retryNonce: []byte{0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb},
	},
	Version2: { // RFC 9369 §3.3
		salt:       []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
		label:      "quicv2 ",
		retryKey:   []byte{0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc, 0x92},
		retryNonce: []byte{0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a},
	},
}

// InitialKeys protect the Initial packets that one side sends. They follow
// from the Destination Connection ID of the client's first Initial, so
// everybody has them. They may be used concurrently.
type InitialKeys struct {
	aead cipher.AEAD
	hp   cipher.Block
	iv   [12]byte
}

// NewInitialKeys derives the keys for packets that from sends (RFC 9001 §5.2).
// It returns ErrInvalid for a version that is not Known.
func NewInitialKeys(v Version, dstID []byte, from Side) (*InitialKeys, error) {
	d, ok := derivations[v]
	if !ok {
		return nil, fmt.Errorf("%w: %v has no Initial keys here", ErrInvalid, v)
	}
	initial, err := hkdf.Extract(sha256.New, dstID, d.salt)
	if err != nil {
		return nil, err
	}
	label := "client in"
	if from == Server {
		label = "server in"
	}
	secret, err := expandLabel(initial, label, sha256.Size)
	if err != nil {
		return nil, err
	}
	return newKeys(secret, d.label)
}

func newKeys(secret []byte, label string) (*InitialKeys, error) {
	key, err := expandLabel(secret, label+"key", 16)
	if err != nil {
		return nil, err
	}
	iv, err := expandLabel(secret, label+"iv", 12)
	if err != nil {
		return nil, err
	}
	hp, err := expandLabel(secret, label+"hp", 16)
	if err != nil {
		return nil, err
	}
	k := &InitialKeys{iv: [12]byte(iv)}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	k.hp, err = aes.NewCipher(hp)
	return k, err
}

// expandLabel is HKDF-Expand-Label of RFC 8446 §7.1, without context.
func expandLabel(secret []byte, label string, n int) ([]byte, error) {
	const prefix = "tls13 "
	info := []byte{byte(n >> 8), byte(n), byte(len(prefix) + len(label))}
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(sha256.New, secret, string(info), n)
}

// Opened is an Initial packet without its protection.
type Opened struct {
	// Header is the header up to and with the packet number, unprotected.
	Header []byte
	// PacketNumber is what of it is in the packet: its low bits.
	PacketNumber uint64
	// Payload is the frames.
	Payload []byte
}

// Open takes the protection off an Initial packet (RFC 9001 §5.3, §5.4) that
// [Parse] has read. It appends to buf, which may be nil, and whose memory the
// result then uses; the packet stays as it is. It returns ErrProtection if the
// keys do not fit. Packet numbers beyond their encoding's range, which an
// Initial hardly has, do not open.
func (k *InitialKeys) Open(buf []byte, h *Header) (Opened, error) {
	start := h.HeaderLen
	if len(h.Packet) < start+maxNumberLen+sampleLen {
		return Opened{}, ErrTruncated
	}
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

// Seal is the inverse of [InitialKeys.Open]: it protects a payload under an
// unprotected header that ends with its packet number, and appends the packet
// to buf. The same input gives the same packet. It returns ErrInvalid if the
// header is not one of an Initial, or its length is not that of the payload.
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
	h, err := Parse(packet, 0)
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

// mask is the header protection for a sample (RFC 9001 §5.4.3).
func (k *InitialKeys) mask(sample []byte) (mask [aes.BlockSize]byte) {
	k.hp.Encrypt(mask[:], sample[:sampleLen])
	return mask
}

// nonce is the AEAD's nonce for a packet number (RFC 9001 §5.3).
func (k *InitialKeys) nonce(number uint64) [12]byte {
	nonce := k.iv
	for i := range 8 {
		nonce[11-i] ^= byte(number >> (8 * i))
	}
	return nonce
}

// VerifyRetry says whether a Retry packet answers an Initial that was sent to
// origDstID (RFC 9001 §5.8).
func VerifyRetry(h *Header, origDstID []byte) bool {
	d, ok := derivations[h.Version]
	if !ok || h.Type != Retry || len(origDstID) > MaxIDLen {
		return false
	}
	block, err := aes.NewCipher(d.retryKey)
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return false
	}
	pseudo := append([]byte{byte(len(origDstID))}, origDstID...)
	pseudo = append(pseudo, h.Packet[:len(h.Packet)-retryTagLen]...)
	return bytes.Equal(aead.Seal(nil, d.retryNonce, nil, pseudo), h.RetryTag)
}
