package wire

import (
	"bytes"
	"testing"
)

// TestPacketsTrailing checks that trailing bytes that are not a packet cause an error,
// after the packets before them.
func TestPacketsTrailing(t *testing.T) {
	initial := long(Version1, 0xc0, 8, 4, 0, 2, 1, 1)
	datagram := append(bytes.Clone(initial), 0x40, 1, 2)
	var types []Type
	var last error
	for h, err := range Packets(datagram, 12) {
		if last = err; err == nil {
			types = append(types, h.Type)
		}
	}
	if len(types) != 1 || types[0] != Initial || last != ErrTruncated {
		t.Errorf("packets %v, then %v", types, last)
	}
	for range Packets(nil, 12) {
		t.Error("a packet in an empty datagram")
	}
}

func TestRun(t *testing.T) {
	// Each letter is a datagram: capital letters have a long header, x is truncated.
	make := func(letters string) (data []byte) {
		for _, c := range letters {
			switch {
			case c == 'x':
				data = append(data, 0x40, 'a', 'a')
			case c < 'a':
				data = append(data, 0xc0, byte(c), byte(c), byte(c), byte(c), 0)
			default:
				data = append(data, 0x40, byte(c), byte(c), byte(c), byte(c), 0)
			}
		}
		return data
	}
	for _, test := range []struct {
		letters string
		segment int
		want    int // bytes
	}{
		{"a", 0, 6},
		{"a", 6, 6},
		{"aaaa", 0, 24},
		{"aaaa", 6, 24},
		{"aab", 6, 12},
		{"abab", 6, 6},
		{"A", 6, 6},
		{"AA", 6, 6},
		{"aAa", 6, 6},
		{"aax", 6, 12},
		{"ax", 6, 6},
		{"aaaa", 3, 3}, // a segment that is too short for an ID is a run of its own
		{"", 6, 0},
	} {
		if got := Run(make(test.letters), test.segment, 4); got != test.want {
			t.Errorf("%q in segments of %d: run of %d bytes, want %d", test.letters, test.segment, got, test.want)
		}
	}
}
