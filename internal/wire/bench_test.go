package wire

import "testing"

func BenchmarkDstID(b *testing.B) {
	short := append([]byte{0x40}, make([]byte, 1200)...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DstID(short, 12); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bench := range []struct{ name, flight string }{{"initial", "v1"}, {"retry", "v1-retry"}} {
		b.Run(bench.name, func(b *testing.B) {
			from := Client
			if bench.name == "retry" {
				from = Server
			}
			d := firstOf(b, bench.flight, from)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(d.data, d.idLen); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("short", func(b *testing.B) {
		short := append([]byte{0x40}, make([]byte, 1200)...)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(short, 12); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("coalesced", func(b *testing.B) {
		d := firstOf(b, "v1", Server)
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range Packets(d.data, d.idLen) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkOpenInitial measures how long it takes to open the first packet of a connection,
// including the derivation of its keys.
func BenchmarkOpenInitial(b *testing.B) {
	d := firstOf(b, "v1", Client)
	h, err := Parse(d.data, d.idLen)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 2*MaxDatagram)
	b.ReportAllocs()
	for b.Loop() {
		keys, err := NewInitialKeys(h.Version, h.DstID, Client)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := keys.Open(buf, &h); err != nil {
			b.Fatal(err)
		}
	}
}
