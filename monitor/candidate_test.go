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
		"too few first bytes": {looksPackets, 0x01, "\x91\x82\x73\x64", false},
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

// TestGuessServer checks which end of a flow that began before the capture is taken for the server.
func TestGuessServer(t *testing.T) {
	id, none := candidateDirection{packets: 9, common: 8}, candidateDirection{packets: 9}
	for name, test := range map[string]struct {
		a, b     uint16 // ports
		toA, toB candidateDirection
		isA, ok  bool
	}{
		"443 at a":                   {443, 50000, none, none, true, true},
		"443 at b":                   {50000, 443, id, none, false, true},
		"443 and another service":    {443, 853, none, none, true, true},
		"a service at b":             {50000, 853, none, none, false, true},
		"two services":               {53, 853, none, none, false, false},
		"IDs to a alone":             {50000, 50001, id, none, true, true},
		"IDs to b alone":             {50000, 50001, none, id, false, true},
		"IDs both ways":              {50000, 50001, id, id, false, false},
		"one packet cannot say that": {50000, 50001, id, candidateDirection{packets: 1}, false, false},
	} {
		s := &candidate{directions: &[2]candidateDirection{test.toB, test.toA}}
		isA, ok := s.guessServer(tuple{a: endpoint{Port: test.a}, b: endpoint{Port: test.b}})
		if isA != test.isA || ok != test.ok {
			t.Errorf("%s: got %v, %v, want %v, %v", name, isA, ok, test.isA, test.ok)
		}
	}
}
