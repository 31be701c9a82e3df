package monitor

import (
	"slices"
	"testing"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// handshakeOf returns a Handshake packet.
func handshakeOf(tb testing.TB, v wire.Version, dst, src []byte) []byte {
	tb.Helper()
	first, _ := wiretest.FirstByte(v, wire.Handshake, 0)
	h := wire.Header{Type: wire.Handshake, First: first, Version: v, DstID: dst, SrcID: src}
	packet, err := wiretest.AppendLong(nil, &h, make([]byte, 200))
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// serverHelloOf returns a ServerHello of TLS 1.3.
func serverHelloOf() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0x13, 0x01, 0, 0, 6, 0, 0x2b, 0, 2, 3, 4)
	return append([]byte{2, 0, 0, byte(len(body))}, body...)
}

// TestCompatibleNegotiation checks a server that answers in another version with
// keys from the same ID, and a client that goes on in that version (RFC 9368 §2.3,
// RFC 9369 §4.1).
func TestCompatibleNegotiation(t *testing.T) {
	for _, versions := range [][2]wire.Version{{wire.Version1, wire.Version2}, {wire.Version2, wire.Version1}} {
		first, then := versions[0], versions[1]
		t.Run(first.String()+" to "+then.String(), func(t *testing.T) {
			id := []byte("original")
			hello := helloOf("compatible.example")
			all := []sent{
				at(0, clientAddr, serverAddr, sealed(t, first, wire.Client, id, id, cliID, 0, cryptoFrame(0, hello[:30]))),
				at(10, serverAddr, clientAddr, sealed(t, then, wire.Server, id, cliID, oldID, 0, cryptoFrame(0, serverHelloOf()))),
				at(10, clientAddr, serverAddr, sealed(t, first, wire.Client, id, id, cliID, 0, cryptoFrame(0, hello[:30]))), // again
				at(11, serverAddr, clientAddr, handshakeOf(t, then, cliID, oldID)),
				at(20, clientAddr, serverAddr, sealed(t, then, wire.Client, id, oldID, cliID, 0, cryptoFrame(30, hello[30:]))),
				at(21, clientAddr, serverAddr, handshakeOf(t, then, oldID, cliID)),
			}
			all = addShorts(all, 10, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
			tracker := newTracker(t, nil)
			track(tracker, all)
			c := only(t, tracker)
			if c.Version != Version(then) || !slices.Equal(c.Versions, []Version{Version(first), Version(then)}) {
				t.Errorf("got version %v of %v, want %v after %v", c.Version, c.Versions, then, first)
			}
			if c.ServerName != "compatible.example" || c.TLSVersion != "1.3" {
				t.Errorf("got %+v, want both hellos", c.TLS)
			}
			if c.Retries != 0 || c.ZeroRTT != 0 || len(c.OriginalIDs) != 1 {
				t.Errorf("got %d Retries, %d packets of 0-RTT, IDs %v", c.Retries, c.ZeroRTT, c.OriginalIDs)
			}
			if stats := tracker.Stats(); stats.Bogus+stats.Malformed+stats.Unopened+stats.Other != 0 {
				t.Errorf("got %+v", stats)
			}
			if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
				t.Errorf("got %d packets, want %d", got, len(all))
			}
		})
	}
}
