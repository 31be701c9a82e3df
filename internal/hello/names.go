package hello

import "fmt"

// groups has the names of groups that QUIC clients offer (IANA, TLS Supported Groups).
var groups = map[uint16]string{
	0x0017: "secp256r1",
	0x0018: "secp384r1",
	0x0019: "secp521r1",
	0x001d: "x25519",
	0x001e: "x448",
	0x0200: "MLKEM512",
	0x0201: "MLKEM768",
	0x0202: "MLKEM1024",
	0x11eb: "SecP256r1MLKEM768",
	0x11ec: "X25519MLKEM768",
	0x11ed: "SecP384r1MLKEM1024",
	0x639a: "SecP256r1Kyber768Draft00",
	0x6399: "X25519Kyber768Draft00",
}

// GroupName returns the registered name of a group, or its number in hex.
func GroupName(group uint16) string {
	if name, ok := groups[group]; ok {
		return name
	}
	return fmt.Sprintf("0x%04x", group)
}

// PostQuantum reports whether a group is post-quantum: ML-KEM or Kyber, alone or hybrid.
func PostQuantum(group uint16) bool {
	switch group {
	case 0x0200, 0x0201, 0x0202, 0x11eb, 0x11ec, 0x11ed, 0x639a, 0x6399:
		return true
	}
	return false
}

// CipherName returns the registered name of a TLS 1.3 cipher suite (RFC 8446 §B.4), or
// its number in hex.
func CipherName(cipher uint16) string {
	switch cipher {
	case 0x1301:
		return "TLS_AES_128_GCM_SHA256"
	case 0x1302:
		return "TLS_AES_256_GCM_SHA384"
	case 0x1303:
		return "TLS_CHACHA20_POLY1305_SHA256"
	case 0x1304:
		return "TLS_AES_128_CCM_SHA256"
	case 0x1305:
		return "TLS_AES_128_CCM_8_SHA256"
	}
	return fmt.Sprintf("0x%04x", cipher)
}
