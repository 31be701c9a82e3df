package monitor

import "testing"

// TestLooksQUIC checks what it takes to be accepted as QUIC by looks alone, and
// that anything less is not enough.
func TestLooksQUIC(t *testing.T) {
	for name, test := range map[string]struct {
		packets uint64
		low     uint32 // low bits of first bytes
		id      string
		want    bool
	}{
		"QUIC":                {looksPackets, 0x1f, "\x91\x82\x73\x64", true},
		"long IDs":            {looksPackets, 0x1f, "\x91\x82\x73\x64\x55\x46\x37\x28\x19\x0a\x91\x82\x73\x64\x55\x46\x37\x28\x19\x0a", true},
		"too few packets":     {looksPackets - 1, 0x1f, "\x91\x82\x73\x64", false},
		"too few first bytes": {looksPackets, 0x0f, "\x91\x82\x73\x64", false},
		"a short ID":          {looksPackets, 0x1f, "\x91\x82\x73", false},
		"more than an ID":     {looksPackets, 0x1f, "\x91\x82\x73\x64\x55\x46\x37\x28\x19\x0a\x91\x82\x73\x64\x55\x46\x37\x28\x19\x0a\x01", false},
		"two unlike bytes":    {looksPackets, 0x1f, "\x91\x82\x91\x82", false},
		"a number":            {looksPackets, 0x1f, "\x91\x82\x73\x00", false},
	} {
		w := candidateDirection{packets: test.packets, low: test.low, common: uint8(len(test.id))}
		copy(w.prefix[:], test.id)
		if got := w.looksQUIC(); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
