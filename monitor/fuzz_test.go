package monitor

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// FuzzTracker checks that tables keep their bounds and lead to no removed
// connection, for any packets between few endpoints.
func FuzzTracker(f *testing.F) {
	hello := initialOf(f, []byte("original"), []byte("scid"), 0, cryptoFrame(0, helloOf("fuzz.example")))
	f.Add(append([]byte{0}, hello...), []byte{1, 0xc0, 0, 0, 0, 0, 4, 's', 'c', 'i', 'd', 8, 'o', 'r', 'i', 'g', 'i', 'n', 'a', 'l', 0, 0, 0, 1}, uint8(3), 0)
	f.Add(append([]byte{0}, append([]byte{0x40}, make([]byte, 60)...)...), append([]byte{1, 0x5f}, make([]byte, 60)...), uint8(9), 30)
	f.Add([]byte{2, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 'Q', '0', '4', '3', 0}, []byte{3, 0xff}, uint8(1), 1)
	chlo := chloOf("fuzz.example", "Browser/1.0")
	f.Add(append([]byte{0}, googleCHLO(f, "Q046", 0, chlo)...), append([]byte{0}, googleCHLO(f, "Q043", 300, chlo[300:])...), uint8(2), 0)
	f.Add(append([]byte{0}, googleCHLO(f, "Q043", 0, chlo[:300])...), append([]byte{0}, googleCHLO(f, "Q043", 300, chlo[300:])...), uint8(2), 0)
	f.Fuzz(func(t *testing.T, a, b []byte, repeat uint8, segment int) {
		tracker := newTracker(t, &Config{MaxConnections: 4, MaxHandshakes: 2, Idle: time.Second})
		endpoints := []string{clientAddr, serverAddr, "192.0.2.1:50001", "203.0.113.1:443"}
		for i := range int(repeat%40) + 1 {
			for _, d := range [][]byte{a, b} {
				if len(d) < 1 {
					continue
				}
				n := int(d[0]) + i*int(repeat>>6)
				data := bytes.Clone(d[1:])
				if len(data) > 30 && i%3 == 2 {
					data[i%30] ^= byte(i)
				}
				p := frame(at(i*100, endpoints[n%4], endpoints[(n+1+n/4%3)%4], data))
				p.SegmentSize = segment
				tracker.Packet(p)
			}
		}
		bounded(t, tracker)
		timely(t, balanced(t, tracker))
		for c := range tracker.Connections() {
			if len(c.Paths) == 0 {
				t.Fatalf("connection without a path: %+v", c)
			}
			if _, err := c.Confidence.MarshalText(); err != nil {
				t.Fatal(err)
			}
		}
		if err := NewEncoder(io.Discard).Stats(new(Stats)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReader checks that reading any capture ends.
func FuzzReader(f *testing.F) {
	f.Add(pcapOf(f, decap.LinkRaw, at(0, clientAddr, serverAddr, []byte("datagram"))))
	f.Add([]byte{0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a})
	f.Fuzz(func(t *testing.T, b []byte) {
		source, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		tracker := newTracker(t, &Config{MaxConnections: 4})
		var p Packet
		for source.Read(&p) == nil {
			tracker.Packet(&p)
		}
		bounded(t, tracker)
		balanced(t, tracker)
	})
}
