package monitor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/wire"
)

// TestHistory checks the letters of connections.
func TestHistory(t *testing.T) {
	hello := cryptoFrame(0, helloOf("history.example"))
	initial := func(frames []byte) []byte { return initialOf(t, []byte("original"), cliID, 0, frames) }
	closed := append([]byte{0x1c, 0, 0, 3}, "bye"...)
	handshake := establishedConn(t)[1]
	unknown := append(append([]byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8}, "original"...), append([]byte{4}, cliID...)...)
	unknown = append(unknown, make([]byte, 1200)...)
	for name, test := range map[string]struct {
		packets []sent
		want    string
	}{
		"shorts":          {establishedConn(t), "IShOoOoOoOoOo"},
		"a close":         {[]sent{at(0, clientAddr, serverAddr, initial(append(hello, closed...)))}, "ISC"},
		"no hello":        {[]sent{at(0, clientAddr, serverAddr, initial([]byte{1}))}, "I"},
		"padding after":   {[]sent{at(0, clientAddr, serverAddr, append(initial(hello), 0, 0, 0))}, "ISX"},
		"Handshake first": {[]sent{handshake}, "h"},
		"0-RTT": {[]sent{
			at(0, clientAddr, serverAddr, initial(hello)),
			sealedZeroRTT(at(1, clientAddr, serverAddr, initial(hello))),
		}, "ISZ"},
		"a Version Negotiation": {[]sent{
			at(0, clientAddr, serverAddr, unknown),
			at(1, serverAddr, clientAddr, append(append(append([]byte{0x80, 0, 0, 0, 0, 4}, cliID...), append([]byte{8}, "original"...)...), 0, 0, 0, 1)),
		}, "U"},
		"Google's": {[]sent{at(0, clientAddr, serverAddr, append([]byte{0x09, 1, 2, 3, 4, 5, 6, 7, 8}, "Q043...."...))}, "U"},
	} {
		tracker := newTracker(t, nil)
		track(tracker, test.packets)
		if got := only(t, tracker).History; got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// TestHistoryOfRetry checks the letters of a real handshake with a Retry, up to the first short
// header.
func TestHistoryOfRetry(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, play(t, &quic.Config{Versions: v1}, true, func(s *scene) { s.exchange(s.dial(nil), 20000) }))
	got := only(t, tracker).History
	if before, _, found := strings.Cut(got, "r"); !found || !strings.Contains(before, "IS") && !strings.HasPrefix(before, "II") {
		t.Errorf("got %s, want Initials, a hello and a Retry", got)
	}
	for _, letter := range "ISrishHOo" {
		if !strings.ContainsRune(got, letter) {
			t.Errorf("%s lacks %c", got, letter)
		}
	}
}

// TestHistoryIsBounded checks that a history ends after its limit, and that what is counted
// together gives the letters of what is counted singly.
func TestHistoryIsBounded(t *testing.T) {
	var long history
	for range 2 * maxHistory {
		long.addLong(wire.Client, wire.Initial)
	}
	if got := long.String(); got != strings.Repeat("I", maxHistory) {
		t.Errorf("got %d letters, want %d", len(got), maxHistory)
	}
	var singly, together history
	for _, n := range []uint64{0, 1, 3, 1, 0, 20, 7, 1000} {
		together.addShorts(wire.Server, n)
		for range n {
			singly.addShort(wire.Server)
		}
		if singly.String() != together.String() || singly.shorts != together.shorts {
			t.Fatalf("after %d more: got %s, want %s", n, together.String(), singly.String())
		}
	}
}

// TestHistorySwaps checks that the letters and IDs change sides with the connection: its server
// was taken for its client until the Initial came.
func TestHistorySwaps(t *testing.T) {
	all := establishedConn(t)
	for i := range all {
		if s := &all[i]; s.from.Port() == 443 {
			s.from, s.to = netip.AddrPortFrom(s.from.Addr(), 50000), netip.AddrPortFrom(s.to.Addr(), 443)
		} else {
			s.from, s.to = netip.AddrPortFrom(s.from.Addr(), 443), netip.AddrPortFrom(s.to.Addr(), 50000)
		}
	}
	tracker := newTracker(t, nil)
	track(tracker, []sent{all[1], all[0], all[2], all[3]})
	c := only(t, tracker)
	if c.History != "hISOo" {
		t.Errorf("got %s, want hISOo", c.History)
	}
	if want := idOf(cliID); c.ClientID == nil || *c.ClientID != want {
		t.Errorf("got %v, want %v", c.ClientID, want)
	}
}
