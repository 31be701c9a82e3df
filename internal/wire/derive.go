package wire

import (
	"crypto/sha256"
	"fmt"
)

// Bounds of what the derivation of keys hashes, so that it needs no memory of its own.
const (
	hashBlock = 64 // the block of SHA-256, in bytes
	maxInfo   = 2 + 1 + len("tls13 ") + len("quicv2 key") + 1
)

// hkdfExtract is HKDF-Extract with SHA-256 (RFC 5869 §2.2). secret has at most MaxIDLen bytes, and
// salt at most a block.
func hkdfExtract(salt, secret []byte) [sha256.Size]byte { return hmacSHA256(salt, secret) }

// expandLabel is HKDF-Expand-Label of RFC 8446 §7.1 with SHA-256 and an empty context. It returns the
// whole first block of the output, of which the caller takes the first n bytes.
func expandLabel(secret *[sha256.Size]byte, label, suffix string, n int) [sha256.Size]byte {
	const prefix = "tls13 "
	var buf [maxInfo + 1]byte
	info := append(buf[:0], byte(n>>8), byte(n), byte(len(prefix)+len(label)+len(suffix)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, suffix...)
	info = append(info, 0, 1) // no context, and the number of the block (RFC 5869 §2.3)
	return hmacSHA256(secret[:], info)
}

// hmacSHA256 is HMAC (RFC 2104 §2) of a short message with a key of at most a block. crypto/hmac makes
// several objects for each.
func hmacSHA256(key, message []byte) [sha256.Size]byte {
	var inner [hashBlock + max(MaxIDLen, maxInfo+1)]byte
	var outer [hashBlock + sha256.Size]byte
	if len(key) > hashBlock || len(message) > len(inner)-hashBlock {
		panic(fmt.Sprintf("wire: HMAC of %d bytes with a key of %d", len(message), len(key)))
	}
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range hashBlock {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	sum := sha256.Sum256(inner[:hashBlock+copy(inner[hashBlock:], message)])
	copy(outer[hashBlock:], sum[:])
	return sha256.Sum256(outer[:])
}
