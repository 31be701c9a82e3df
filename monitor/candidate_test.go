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
	const high, higher = 50000, 50001
	with := func(common uint8, size uint64) candidateDirection {
		return candidateDirection{packets: 9, common: common, bytes: 9 * size}
	}
	id, none := with(8, 100), with(0, 100)
	for name, test := range map[string]struct {
		a, b     uint16 // ports
		toA, toB candidateDirection
		isA      bool
		by       string
	}{
		"443 at a":                   {443, high, none, none, true, byPort},
		"443 at b":                   {high, 443, id, none, false, byPort},
		"443 and another service":    {443, 853, none, none, true, byPort},
		"a service at b":             {high, 853, none, none, false, byPort},
		"two services":               {53, 853, none, none, false, ""},
		"IDs to a alone":             {high, higher, id, none, true, byIDs},
		"IDs to b alone":             {high, higher, none, id, false, byIDs},
		"IDs both ways":              {high, higher, id, id, false, ""},
		"one packet cannot say that": {high, higher, id, candidateDirection{packets: 1, bytes: 100}, false, ""},
		"4433 at a":                  {4433, high, id, id, true, byPort},
		"8443 at b":                  {high, 8443, id, id, false, byPort},
		"IDs say more than 4433":     {4433, high, none, id, false, byIDs},
		"a sends more":               {high, higher, id, with(8, 1200), true, bySize},
		"b sends more":               {high, higher, with(8, 1200), id, false, bySize},
		"b sends a little more":      {high, higher, with(8, 350), id, false, ""},
	} {
		// The server is at the end that sends more, and to which packets have an ID.
		s := &candidate{directions: &[2]candidateDirection{test.toB, test.toA}}
		isA, by := s.guessServer(tuple{a: endpoint{Port: test.a}, b: endpoint{Port: test.b}})
		if isA != test.isA || by != test.by {
			t.Errorf("%s: got %v, %q, want %v, %q", name, isA, by, test.isA, test.by)
		}
	}
}
