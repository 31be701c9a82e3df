package wire_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// FuzzParse checks that a parsed header and packet are within the datagram, and that the
// packet can be built again from the header.
func FuzzParse(f *testing.F) {
	wire.Seeds(f, 12)
	f.Fuzz(func(t *testing.T, b []byte, idLen int) {
		idLen &= 31
		before := bytes.Clone(b)
		h, err := wire.Parse(b, idLen)
		if id, idErr := wire.DstID(b, idLen); err == nil && (idErr != nil || !bytes.Equal(id, h.DstID)) {
			t.Fatalf("DstID %x, %v, but Parse %x", id, idErr, h.DstID)
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the packet changed")
		}
		if err != nil || h.Type == wire.OneRTT {
			return
		}
		if len(h.Packet) > len(b) || h.HeaderLen > len(h.Packet) {
			t.Fatalf("header of %d, packet of %d, in %d bytes", h.HeaderLen, len(h.Packet), len(b))
		}
		made, err := wiretest.AppendLong(nil, &h, h.Packet[h.HeaderLen:])
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.Parse(made, idLen)
		if err != nil {
			t.Fatal(err)
		}
		sameHeader(t, &again, &h)
	})
}

// TestRebuild checks that recorded packets can be built again from their headers.
func TestRebuild(t *testing.T) {
	for data, idLen := range wire.Recorded(t) {
		for h, err := range wire.Packets(data, idLen) {
			if err != nil {
				t.Fatal(err)
			}
			if h.Type == wire.OneRTT {
				continue
			}
			b, err := wiretest.AppendLong(nil, &h, h.Packet[h.HeaderLen:])
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.Parse(b, idLen)
			if err != nil {
				t.Fatal(err)
			}
			sameHeader(t, &got, &h)
		}
	}
}

// sameHeader compares two headers and payloads, but not where they are in a datagram, nor
// how long the encoding of their lengths is.
func sameHeader(t *testing.T, got, want *wire.Header) {
	t.Helper()
	payload := func(h *wire.Header) []byte {
		if h.Type == wire.Retry || h.Type == wire.Negotiation {
			return nil
		}
		return h.Packet[h.HeaderLen:]
	}
	if !bytes.Equal(payload(got), payload(want)) {
		t.Errorf("payload %x, want %x", payload(got), payload(want))
	}
	g, w := *got, *want
	g.HeaderLen, w.HeaderLen, g.Packet, w.Packet = 0, 0, nil, nil
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %+v, want %+v", g, w)
	}
}
