package monitor

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/quicway/quicway/internal/wire"
)

// zeroRTTOf makes a packet of 0-RTT.
func zeroRTTOf(tb testing.TB, dst, src []byte) []byte {
	tb.Helper()
	first, _ := wire.FirstByte(wire.Version1, wire.ZeroRTT, 0)
	h := wire.Header{Type: wire.ZeroRTT, First: first, Version: wire.Version1, DstID: dst, SrcID: src}
	packet, err := wire.AppendLong(nil, &h, bytes.Repeat([]byte{7}, 300))
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// TestZeroRTTFirst: 0-RTT that has overtaken the Initial is of the same connection,
// whether its client has an ID or not.
func TestZeroRTTFirst(t *testing.T) {
	for name, src := range map[string][]byte{"an ID": cliID, "no ID": nil} {
		id := []byte("original")
		tracker := newTracker(t, nil)
		track(tracker, []sent{
			at(0, clientAddr, serverAddr, zeroRTTOf(t, id, src)),
			at(1, clientAddr, serverAddr, initialOf(t, id, src, 0, cryptoFrame(0, helloOf("early.example")))),
			at(2, clientAddr, serverAddr, zeroRTTOf(t, id, src)),
		})
		all := connections(tracker)
		if len(all) != 1 {
			t.Errorf("client with %s: got %d connections, want 1", name, len(all))
			continue
		}
		c := all[0]
		if c.Confidence != Proven || c.ZeroRTT != 2 || c.ServerName != "early.example" || c.OriginalID != "6f726967696e616c" || c.Paths[0].Client.String() != clientAddr {
			t.Errorf("client with %s: got %v, %d packets of 0-RTT, %+v, ID %s", name, c.Confidence, c.ZeroRTT, c.TLS, c.OriginalID)
		}
	}
}

// TestScatteredHello: a long ClientHello in ten datagrams, in any order.
func TestScatteredHello(t *testing.T) {
	const datagrams = 10
	hello := helloOf("scattered.example")
	// What pads it is an extension that nobody reads.
	const filler = 9000
	hello = binary.BigEndian.AppendUint16(append(hello, 0xff, 0x77), filler)
	hello = append(hello, make([]byte, filler)...)
	binary.BigEndian.PutUint16(hello[2:], uint16(len(hello)-4))
	binary.BigEndian.PutUint16(hello[45:], uint16(len(hello)-47))
	for seed := range uint64(20) {
		order := rand.New(rand.NewPCG(seed, 1)).Perm(datagrams)
		tracker := newTracker(t, nil)
		id := []byte("original")
		for i, n := range order {
			size := len(hello)/datagrams + 1
			piece := hello[n*size : min((n+1)*size, len(hello))]
			tracker.Packet(frame(at(i, clientAddr, serverAddr, initialOf(t, id, nil, byte(n), cryptoFrame(n*size, piece)))))
		}
		if c := only(t, tracker); c.ServerName != "scattered.example" || c.FromClient.Packets != datagrams {
			t.Fatalf("order %v: got %q in %d packets", order, c.ServerName, c.FromClient.Packets)
		}
	}
}

