package monitor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/quicway/quicway/internal/decap"
)

// addrOf returns the address of client i.
func addrOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 50000)
}

// shorts adds connections to the tracker and returns a packet with a short header
// for each.
func shorts(tb testing.TB, t *Tracker, n int) (out []sent) {
	tb.Helper()
	for i := range n {
		from := addrOf(i)
		to := netip.MustParseAddrPort(serverAddr)
		id := binary.BigEndian.AppendUint64(nil, uint64(i)+1)
		first := at(i/1000, clientAddr, serverAddr, initialOf(tb, id, id[4:], 0, cryptoFrame(0, helloOf("bench.example"))))
		first.from = from
		t.Packet(frame(first))
		short := append([]byte{0x40}, make([]byte, 1199)...)
		out = append(out, sent{at: first.at, from: to, to: from, data: append(append(short[:1:1], id[4:]...), short[5:]...)})
	}
	return out
}

// TestShortHeadersDoNotAllocate checks that short headers of known connections do
// not allocate.
func TestShortHeadersDoNotAllocate(t *testing.T) {
	tracker := newTracker(t, nil)
	tracker.events.wanted.Store(false)
	var frames []*Packet
	for _, s := range shorts(t, tracker, 100) {
		frames = append(frames, frame(s))
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range frames {
			tracker.Packet(p)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(frames))
	}
}

// BenchmarkFile measures reading a capture of bulk traffic, decapsulation and the
// tracker.
func BenchmarkFile(b *testing.B) {
	for _, flows := range []int{1, 10000} {
		name := "flows=1"
		if flows > 1 {
			name = "flows=10000"
		}
		b.Run(name, func(b *testing.B) {
			tracker := newTracker(b, nil)
			tracker.events.wanted.Store(false)
			packets := shorts(b, tracker, flows)
			for len(packets) < 20000 {
				packets = append(packets, packets[:min(len(packets), 20000-len(packets))]...)
			}
			capture := pcapOf(b, decap.LinkRaw, packets...)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				source, err := NewReader(bytes.NewReader(capture))
				if err != nil {
					b.Fatal(err)
				}
				var p Packet
				for ; n < b.N && source.Read(&p) == nil; n++ {
					tracker.Packet(&p)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pps")
		})
	}
}

// BenchmarkTracker measures decapsulation and the tracker.
func BenchmarkTracker(b *testing.B) {
	tracker := newTracker(b, nil)
	tracker.events.wanted.Store(false)
	var frames []*Packet
	for _, s := range shorts(b, tracker, 10000) {
		frames = append(frames, frame(s))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tracker.Packet(frames[i])
		if i++; i == len(frames) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pps")
}

// BenchmarkLayers compares decapsulation with that of gopacket.
func BenchmarkLayers(b *testing.B) {
	p := frame(at(0, clientAddr, serverAddr, make([]byte, 1200)))
	b.Run("decap", func(b *testing.B) {
		var d decap.Datagram
		b.ReportAllocs()
		for b.Loop() {
			if decap.UDP(decap.LinkRaw, p.Data, &d) != decap.Found {
				b.Fatal("no datagram")
			}
		}
	})
	b.Run("gopacket", func(b *testing.B) {
		var ip layers.IPv4
		var udp layers.UDP
		parser := gopacket.NewDecodingLayerParser(layers.LayerTypeIPv4, &ip, &udp)
		parser.IgnoreUnsupported = true
		var decoded []gopacket.LayerType
		b.ReportAllocs()
		for b.Loop() {
			if err := parser.DecodeLayers(p.Data, &decoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMemory reports the memory of a connection after its handshake.
func BenchmarkMemory(b *testing.B) {
	const n = 20000
	for b.Loop() {
		bytes, allocations := connectionCost(b, n)
		b.ReportMetric(bytes, "B/connection")
		b.ReportMetric(allocations, "allocs/op") // for a connection with its handshake
	}
}

// connectionCost returns the memory that each of n connections takes, with its entries in the tables, and
// the allocations for it. Each has a client of its own, one path and a ClientHello.
func connectionCost(tb testing.TB, n int) (bytes, allocations float64) {
	tb.Helper()
	var before, after runtime.MemStats
	tracker := newTracker(tb, &Config{MaxHandshakes: 1})
	tracker.events.wanted.Store(false) // events would have copies
	runtime.GC()
	runtime.ReadMemStats(&before)
	shorts(tb, tracker, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(tracker)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)
}

// maxConnectionCost is the memory of a connection in docs/monitor.md, in bytes.
const maxConnectionCost = 2200

// TestConnectionIsSmall checks what a connection costs.
func TestConnectionIsSmall(t *testing.T) {
	if got, _ := connectionCost(t, 5000); got > maxConnectionCost {
		t.Errorf("a connection takes %.0f bytes, want at most %d", got, maxConnectionCost)
	}
}
