package monitor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quicway/quicway/internal/hello"
	"github.com/quicway/quicway/internal/wire"
)

// handshake is what is needed to read a connection's Initials.
type handshake struct {
	keyID   ID // the keys follow from it; empty: not known
	keys    [2]sideKeys
	streams [2]wire.CryptoStream
	read    [2]bool // the hello of that side
	base    uint64  // in Google QUIC, the offset of the CHLO in its stream
}

// sideKeys open the Initials of a side in the dialect that it has used last.
type sideKeys struct {
	dialect wire.Dialect
	keys    *wire.InitialKeys // nil: not derived yet
}

// initialKeys returns the keys of a side's Initials, or nil if they are not known.
func (h *handshake) initialKeys(from wire.Side, d wire.Dialect) *wire.InitialKeys {
	if h.keyID.len == 0 {
		return nil
	}
	have := &h.keys[from]
	if have.keys == nil || have.dialect != d {
		keys, err := d.InitialKeys(h.keyID.bytes[:h.keyID.len], from)
		if err != nil {
			return nil
		}
		*have = sideKeys{d, keys}
	}
	return have.keys
}

// done reports whether the hellos of both sides have been read.
func (h *handshake) done() bool { return h.read[wire.Client] && h.read[wire.Server] }

// maxALPN bounds the protocols that are kept of a client, which may list
// thousands of empty ones.
const maxALPN = 16

// maxServerName bounds the bytes that are kept of a server name, which may have 16 KiB. It is one more than
// the longest name of the DNS has. So no pattern of a filter matches a name that was cut.
const maxServerName = maxName + 1

// readClient reads the ClientHello if it is complete.
func (c *connection) readClient() (read bool, err error) {
	msg := c.handshake.streams[wire.Client].ClientHello()
	if msg == nil {
		return false, nil
	}
	c.handshake.read[wire.Client] = true
	hi, err := hello.ParseClient(msg)
	if err != nil {
		return false, err
	}
	info := TLS{
		ServerName: strings.Clone(hi.ServerName[:min(len(hi.ServerName), maxServerName)]), JA4: hi.JA4(),
		ALPN: slices.Clone(hi.ALPN[:min(len(hi.ALPN), maxALPN)]), ALPNOmitted: max(len(hi.ALPN)-maxALPN, 0),
		ECH: hi.ECH, PostQuantum: hi.PostQuantum(),
	}
	for _, group := range hi.Groups {
		if name := hello.GroupName(group); hello.PostQuantum(group) && !slices.Contains(info.PostQuantumGroups, name) {
			info.PostQuantumGroups = append(info.PostQuantumGroups, name)
		}
	}
	if c.tls != nil {
		info.Cipher, info.Group, info.TLSVersion = c.tls.Cipher, c.tls.Group, c.tls.TLSVersion
	}
	c.tls = &info
	return true, nil
}

// readServer reads the ServerHello if it is complete.
func (c *connection) readServer() (read bool, err error) {
	msg := c.handshake.streams[wire.Server].ServerHello()
	if msg == nil {
		return false, nil
	}
	c.handshake.read[wire.Server] = true
	hi, err := hello.ParseServer(msg)
	if err != nil {
		return false, err
	}
	info := TLS{}
	if c.tls != nil {
		info = *c.tls
	}
	info.Cipher = hello.CipherName(hi.Cipher)
	if hi.Group != 0 {
		info.Group = hello.GroupName(hi.Group)
	}
	if info.TLSVersion = fmt.Sprintf("%#04x", hi.Version); hi.Version == 0x0304 {
		info.TLSVersion = "1.3"
	}
	c.tls = &info
	return true, nil
}
