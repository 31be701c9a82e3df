package monitor

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/decap"
)

// withECN gives each datagram the next codepoint.
func withECN(all []sent) (out []sent) {
	for i, s := range all {
		s.ecn = decap.ECN(i / 2 % 4) // both ends send in turns
		out = append(out, s)
	}
	return out
}

// marks returns what the endpoint at an address has sent.
func marks(all []sent, from netip.AddrPort) (sum Traffic) {
	for _, s := range all {
		if s.from == from {
			sum.Packets++
			sum.Bytes += uint64(len(s.data))
			sum.ECN.count(s.ecn, 1)
		}
	}
	return sum
}

// TestECN checks the codepoints of each direction: of a whole connection, of one that was
// captured from within and so was a candidate at first, and of IPv6.
func TestECN(t *testing.T) {
	whole := addShorts(establishedConn(t), 20, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
	for name, all := range map[string][]sent{
		"whole": whole, "mid-flow": whole[len(whole)-40:], "IPv6": toIPv6(whole),
	} {
		tracker := newTracker(t, nil)
		all = withECN(all)
		track(tracker, all)
		c := only(t, tracker)
		for _, p := range []struct{ client, server Traffic }{{c.FromClient, c.FromServer}, {c.Paths[0].FromClient, c.Paths[0].FromServer}} {
			if want := marks(all, c.Paths[0].Client); p.client != want || want.ECN.CE == 0 {
				t.Errorf("%s: got %v from the client, want %v", name, p.client, want)
			}
			if want := marks(all, c.Paths[0].Server); p.server != want || want.ECN.CE == 0 {
				t.Errorf("%s: got %v from the server, want %v", name, p.server, want)
			}
		}
	}
}

// TestECNOfPotential checks the codepoints of a flow that is not known to be QUIC.
func TestECNOfPotential(t *testing.T) {
	tracker := newTracker(t, nil)
	all := withECN(addShorts(establishedConn(t)[:1], 8, shortHeaders{"192.0.2.9:9", "192.0.2.8:8", oldID, 300})[1:])
	track(tracker, all)
	for f := range tracker.Potential() {
		if got, want := f.FromB, marks(all, all[0].from); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		return
	}
	t.Error("there is no potential flow")
}

// TestECNInJSON checks that unmarked traffic has no codepoints, and the names of the others.
func TestECNInJSON(t *testing.T) {
	for want, traffic := range map[string]Traffic{
		`{"packets":3,"bytes":9}`:                                  {Packets: 3, Bytes: 9},
		`{"packets":3,"bytes":9,"ecn":{"ect0":1,"ect1":0,"ce":2}}`: {Packets: 3, Bytes: 9, ECN: ECN{ECT0: 1, CE: 2}},
	} {
		if got, err := json.Marshal(traffic); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
