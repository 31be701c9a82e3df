package udp

import (
	"bytes"
	"testing"
)

func TestMessageSegments(t *testing.T) {
	for _, test := range []struct {
		length, segment int
		want            []int
	}{
		{0, 0, []int{0}},
		{5, 0, []int{5}},
		{5, 5, []int{5}},
		{5, 9, []int{5}},
		{6, 3, []int{3, 3}},
		{7, 3, []int{3, 3, 1}},
		{0, 3, []int{0}},
	} {
		m := Message{Data: make([]byte, test.length), SegmentSize: test.segment}
		var got []int
		for data := range m.Segments() {
			got = append(got, len(data))
		}
		if len(got) != len(test.want) || m.Count() != len(test.want) {
			t.Fatalf("%d bytes in segments of %d: %v, count %d, want %v", test.length, test.segment, got, m.Count(), test.want)
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%d bytes in segments of %d: %v, want %v", test.length, test.segment, got, test.want)
			}
		}
	}
}

// TestMessageTrains checks that the parts of a message are within the kernel's limits, and
// complete.
func TestMessageTrains(t *testing.T) {
	for _, length := range []int{1, 100, 1200, 65_000, 65_507, 200_000} {
		for _, segment := range []int{0, 1, 100, 1200, 1452, 40_000} {
			if segment == 0 && length > maxPayload {
				continue // no datagram
			}
			data := make([]byte, length)
			for i := range data {
				data[i] = byte(i / 7)
			}
			m := Message{Data: data, SegmentSize: segment}
			var got []byte
			count := 0
			for part := range m.trains() {
				if part.Count() > maxSegments || len(part.Data) > maxPayload {
					t.Errorf("%d bytes of %d: train of %d datagrams, %d bytes", length, segment, part.Count(), len(part.Data))
				}
				if part.Count() == 1 && part.SegmentSize != 0 {
					t.Errorf("%d bytes of %d: one datagram as a train", length, segment)
				}
				count += part.Count()
				got = append(got, part.Data...)
			}
			if !bytes.Equal(got, data) || count != m.Count() {
				t.Errorf("%d bytes of %d: %d bytes in %d datagrams, want %d", length, segment, len(got), count, m.Count())
			}
		}
	}
}
