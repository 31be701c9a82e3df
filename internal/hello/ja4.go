package hello

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// JA4 returns the fingerprint of a ClientHello in QUIC, as FoxIO defines it: a summary,
// the hash of the cipher suites, and the hash of the extensions and signature
// algorithms.
func (c *Client) JA4() string {
	ciphers := withoutGrease(c.Ciphers)
	extensions := withoutGrease(c.Extensions)
	name := byte('i')
	if c.HasServerName {
		name = 'd'
	}
	head := fmt.Sprintf("q%s%c%02d%02d%s", c.ja4Version(), name,
		min(len(ciphers), 99), min(len(extensions), 99), c.ja4ALPN())

	slices.Sort(ciphers)
	listed := slices.DeleteFunc(slices.Sorted(slices.Values(extensions)), func(e uint16) bool {
		return e == extServerName || e == extALPN
	})
	tail := hexList(listed)
	if signatures := withoutGrease(c.Signatures); len(signatures) > 0 {
		tail += "_" + hexList(signatures)
	}
	if len(listed) == 0 {
		tail = ""
	}
	return head + "_" + ja4Hash(hexList(ciphers)) + "_" + ja4Hash(tail)
}

// ja4Version returns the two characters for the version.
func (c *Client) ja4Version() string {
	switch c.Version {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	}
	return "00"
}

// ja4ALPN returns the first and the last character of the first protocol. If one of them
// is not a letter or digit it returns those of its bytes in hex.
func (c *Client) ja4ALPN() string {
	if len(c.ALPN) == 0 || c.ALPN[0] == "" {
		return "00"
	}
	p := c.ALPN[0]
	first, last := p[0], p[len(p)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return string([]byte{first, last})
	}
	const digits = "0123456789abcdef"
	return string([]byte{digits[first>>4], digits[last&15]})
}

func alphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

func withoutGrease(all []uint16) []uint16 { return slices.DeleteFunc(slices.Clone(all), grease) }

// hexList returns the values in hex, separated by commas.
func hexList(all []uint16) string {
	texts := make([]string, len(all))
	for i, v := range all {
		texts[i] = fmt.Sprintf("%04x", v)
	}
	return strings.Join(texts, ",")
}

// ja4Hash returns the first twelve hex digits of a list's SHA-256, or zeros if the list is
// empty.
func ja4Hash(list string) string {
	if list == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(list))
	return hex.EncodeToString(sum[:])[:12]
}
