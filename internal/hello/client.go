package hello

import (
	"errors"
	"slices"
)

// ErrInvalid is returned for messages that are cut or invalid.
var ErrInvalid = errors.New("invalid TLS message")

// Extensions (IANA, TLS ExtensionType Values).
const (
	extServerName        = 0x0000
	extGroups            = 0x000a
	extSignatures        = 0x000d
	extALPN              = 0x0010
	extSupportedVersions = 0x002b
	extKeyShare          = 0x0033
	extECH               = 0xfe0d
)

const (
	tls13    = 0x0304
	tlsDraft = 0x7f // the first byte of the versions of TLS 1.3 drafts
)

// Client is a ClientHello. It does not share memory with the message.
type Client struct {
	// ServerName is the name in the server_name extension. HasServerName reports
	// whether there is such an extension.
	ServerName    string
	HasServerName bool
	ALPN          []string
	// ECH reports whether there is an encrypted_client_hello extension. Some clients
	// send one with random contents (GREASE), which looks the same.
	ECH bool

	Version    uint16 // the highest one offered
	Ciphers    []uint16
	Extensions []uint16 // in their order, with GREASE
	Groups     []uint16
	KeyShares  []uint16 // the groups of the key shares
	Signatures []uint16
}

// ParseClient parses a ClientHello with its message header.
func ParseClient(msg []byte) (*Client, error) {
	r := reader{msg}
	if r.uint8() != 1 {
		return nil, ErrInvalid
	}
	body := reader{r.vector(3)}
	c := &Client{Version: body.uint16()}
	body.take(32)  // random
	body.vector(1) // session ID
	for ciphers := (reader{body.vector(2)}); len(ciphers.b) > 0; {
		c.Ciphers = append(c.Ciphers, ciphers.uint16())
	}
	body.vector(1) // compression
	if body.b == nil || len(c.Ciphers) == 0 {
		return nil, ErrInvalid
	}
	for exts := (reader{body.vector(2)}); len(exts.b) > 0; {
		kind := exts.uint16()
		data := reader{exts.vector(2)}
		if data.b == nil {
			return nil, ErrInvalid
		}
		c.Extensions = append(c.Extensions, kind)
		c.extension(kind, data)
	}
	return c, nil
}

// extension parses an extension. Invalid ones are ignored.
func (c *Client) extension(kind uint16, data reader) {
	switch kind {
	case extServerName:
		c.HasServerName = true
		for names := (reader{data.vector(2)}); len(names.b) > 0; {
			if kind, name := names.uint8(), names.vector(2); kind == 0 && c.ServerName == "" {
				c.ServerName = string(name)
			}
		}
	case extALPN:
		for names := (reader{data.vector(2)}); len(names.b) > 0; {
			c.ALPN = append(c.ALPN, string(names.vector(1)))
		}
	case extGroups:
		c.Groups = (&reader{data.vector(2)}).uint16s()
	case extSignatures:
		c.Signatures = (&reader{data.vector(2)}).uint16s()
	case extSupportedVersions:
		c.Version = 0
		for _, v := range (&reader{data.vector(1)}).uint16s() {
			if v>>8 == tlsDraft {
				v = tls13
			}
			if !grease(v) {
				c.Version = max(c.Version, v)
			}
		}
	case extKeyShare:
		for shares := (reader{data.vector(2)}); len(shares.b) > 0; {
			c.KeyShares = append(c.KeyShares, shares.uint16())
			shares.vector(2)
		}
	case extECH:
		c.ECH = true
	}
}

// PostQuantum reports whether the client has sent a key share for a post-quantum group.
func (c *Client) PostQuantum() bool { return slices.ContainsFunc(c.KeyShares, PostQuantum) }

// grease reports whether a value is reserved for GREASE (RFC 8701 §2).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }
