package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// quicHello returns the ClientHello of a QUIC client, with a post-quantum key share.
func quicHello(t testing.TB, name string) []byte {
	t.Helper()
	client := tls.QUICClient(&tls.QUICConfig{TLSConfig: &tls.Config{ServerName: name, NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13}})
	defer client.Close()
	client.SetTransportParameters([]byte{})
	if err := client.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for {
		switch e := client.NextEvent(); e.Kind {
		case tls.QUICWriteData:
			return append([]byte(nil), e.Data...)
		case tls.QUICNoEvent:
			t.Fatal("no ClientHello")
		}
	}
}

// initials returns datagrams with a ClientHello in a number of parts.
func initials(t testing.TB, v wire.Version, id, hello []byte, parts int) (out [][]byte) {
	t.Helper()
	size := (len(hello) + parts - 1) / parts
	for i := range parts {
		lo := min(i*size, len(hello))
		out = append(out, initial(t, v, id, uint32(i), lo, hello[lo:min(lo+size, len(hello))]))
	}
	return out
}

// initial returns a datagram of 1200 bytes or more with an Initial and a CRYPTO frame.
func initial(t testing.TB, v wire.Version, id []byte, number uint32, offset int, data []byte) []byte {
	t.Helper()
	payload := append([]byte{0x06}, varint2(offset)...)
	payload = append(append(payload, varint2(len(data))...), data...)
	return sealed(t, v, id, id, number, payload)
}

// sealed returns an Initial with the keys of an ID, padded to 1200 bytes or more.
func sealed(t testing.TB, v wire.Version, keyID, id []byte, number uint32, payload []byte) []byte {
	t.Helper()
	keys, err := wire.NewInitialKeys(v, keyID, wire.Client)
	if err != nil {
		t.Fatal(err)
	}
	first := byte(0xc3) // with a packet number of four bytes
	if v == wire.Version2 {
		first = 0xd3
	}
	header := binary.BigEndian.AppendUint32([]byte{first}, uint32(v))
	header = append(append(header, byte(len(id))), id...)
	header = append(header, 4, 'c', 'l', 'n', 't', 0)
	for len(header)+2+4+len(payload)+wire.Overhead < minInitial {
		payload = append(payload, 0)
	}
	header = append(header, varint2(4+len(payload)+wire.Overhead)...)
	header = binary.BigEndian.AppendUint32(header, number)
	packet, err := keys.Seal(nil, header, payload)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// varint2 returns a varint of two bytes.
func varint2(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)|0x4000) }

// longPacket returns a long header with a payload that cannot be decrypted.
func longPacket(v wire.Version, kind byte, dst, src []byte, size int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xc0 | kind<<4}, uint32(v))
	b = append(append(b, byte(len(dst))), dst...)
	b = append(append(b, byte(len(src))), src...)
	if kind == 0 {
		b = append(b, 0) // no token
	}
	n := max(size-len(b)-2, 0)
	return append(append(b, varint2(n)...), make([]byte, n)...)
}

// shortPacket returns a packet with a short header.
func shortPacket(id []byte, size int) []byte {
	b := append([]byte{0x40}, id...)
	return append(b, make([]byte, max(size-len(b), 0))...)
}

// recv returns the next datagram, and where it comes from.
func recv(t testing.TB, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n], from
}

// wantSilence checks that no datagram comes for a moment.
func wantSilence(t testing.TB, what string, c *net.UDPConn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	if n, from, err := c.ReadFromUDPAddrPort(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: got %x from %v, %v", what, buf[:n], from, err)
	}
}

// send sends datagrams.
func send(t testing.TB, c *net.UDPConn, to netip.AddrPort, datagrams ...[]byte) {
	t.Helper()
	for _, b := range datagrams {
		if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
}

// addrOf returns the address of a socket.
func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// pair is a flow between a client and an upstream that are plain sockets.
type pair struct {
	testing.TB
	s        *Server
	client   *net.UDPConn
	upstream *net.UDPConn
	from     netip.AddrPort // of the relay, as the upstream sees it
	first    []byte         // the client's first ID
	chosen   []byte         // that of the upstream
}

// newPair begins a connection: the upstream gets the ClientHello.
func newPair(t testing.TB, s *Server, upstream *net.UDPConn, name string, client *net.UDPConn) *pair {
	t.Helper()
	p := &pair{TB: t, s: s, client: client, upstream: upstream, first: testID(8)}
	datagrams := initials(t, wire.Version1, p.first, quicHello(t, name), 2)
	send(t, client, s.Addr(), datagrams...)
	for range datagrams {
		p.from = p.arrives(p.first)
	}
	return p
}

// arrives waits until the upstream gets a packet with a long header and an ID, and returns where it
// comes from. Others, such as those of attempts before, are skipped.
func (p *pair) arrives(id []byte) (from netip.AddrPort) {
	p.Helper()
	for {
		b, from := recv(p, p.upstream)
		if h, err := wire.Parse(b, len(id)); err == nil && wire.IsLong(b[0]) && bytes.Equal(h.DstID, id) {
			return from
		}
	}
}

// confirm makes the upstream announce its ID and the client use it.
func (p *pair) confirm() *pair {
	p.Helper()
	p.chosen = testID(8)
	send(p, p.upstream, p.from, longPacket(wire.Version1, 2, []byte("clnt"), p.chosen, 1200))
	recv(p, p.client)
	send(p, p.client, p.s.Addr(), longPacket(wire.Version1, 2, p.chosen, []byte("clnt"), 100))
	if from := p.arrives(p.chosen); from != p.from {
		p.Fatalf("the upstream sees the client at %v, before at %v", from, p.from)
	}
	return p
}

var testIDs uint32

// testID returns another connection ID each time.
func testID(n int) []byte {
	testIDs++
	return binary.BigEndian.AppendUint32(make([]byte, n-4), testIDs)
}
