package monitor

import (
	"net/netip"
	"testing"
)

// TestCommunityID checks the values that the specification publishes as its baseline, which
// has UDP only with IPv4.
func TestCommunityID(t *testing.T) {
	const tcp = 6
	for _, test := range []struct {
		protocol     byte
		from, to     string
		want, seeded string // with the seeds 0 and 1
	}{
		{protocolUDP, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ=", "1:Q9We8WO3piVF8yEQBNJF4uiSVrI="},
		{protocolUDP, "8.8.8.8:53", "192.168.1.52:54585", "1:d/FP5EW3wiY1vCndhwleRRKHowQ=", "1:Q9We8WO3piVF8yEQBNJF4uiSVrI="},
		{tcp, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:3V71V58M3Ksw/yuFALMcW0LAHvc="},
		{tcp, "[2001:470:e5bf:dead:4957:2174:e82c:4887]:63943", "[2607:f8b0:400c:c03::1a]:25", "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=", "1:eJYTW6AOzFLlSUoESovMjnu7rMw="},
		{tcp, "[2607:f8b0:400c:c03::1a]:25", "[2001:470:e5bf:dead:4957:2174:e82c:4887]:63943", "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=", "1:eJYTW6AOzFLlSUoESovMjnu7rMw="},
	} {
		from, to := netip.MustParseAddrPort(test.from), netip.MustParseAddrPort(test.to)
		for seed, want := range []string{test.want, test.seeded} {
			if got := communityID(uint16(seed), test.protocol, from, to); got != want {
				t.Errorf("%v to %v with the seed %d: got %s, want %s", from, to, seed, got, want)
			}
		}
	}
}

// TestCommunityIDs checks that connections, events and each of their paths have the Community ID
// of their endpoints, with the seed.
func TestCommunityIDs(t *testing.T) {
	all := addShorts(establishedConn(t), 20, shortHeaders{"192.0.2.1:50001", serverAddr, oldID, 300}, shortHeaders{serverAddr, "192.0.2.1:50001", cliID, 300})
	for _, all := range [][]sent{all, toIPv6(all)} {
		tracker := newTracker(t, &Config{CommunityIDSeed: 7})
		track(tracker, all)
		c := only(t, tracker)
		if len(c.Paths) != 2 || c.CommunityID != c.Paths[0].CommunityID {
			t.Fatalf("got %s and the paths %v", c.CommunityID, c.Paths)
		}
		for _, p := range c.Paths {
			if want := communityID(7, protocolUDP, p.Client, p.Server); p.CommunityID != want {
				t.Errorf("%v to %v: got %s, want %s", p.Client, p.Server, p.CommunityID, want)
			}
		}
		for _, e := range tracker.take() {
			if e.Connection.CommunityID != c.CommunityID {
				t.Errorf("%v: got %s, want %s", e.Kind, e.Connection.CommunityID, c.CommunityID)
			}
		}
	}
}
