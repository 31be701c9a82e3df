package monitor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/packet"
)

// preferredScene returns the packets of a client that migrates to the preferred address of its
// server (RFC 9000 §9.6) at 300 ms. The server answers there after a delay, and from its other
// address until then, in milliseconds.
func preferredScene(tb testing.TB, client, server string, toServer string, delay int, more ...traffic) []sent {
	tb.Helper()
	begin := establishedBy(tb, hostA, []byte("srv-id-A"), []byte("cliA"))
	var late []sent
	for _, s := range packets(begin,
		traffic{client: client, server: server, toServer: toServer, toClient: "new1", from: 300, to: 2000, pause: 20, probe: true}) {
		if len(late) < len(begin) || s.to.String() == server {
			late = append(late, s) // from the client
		} else if answers := start.Add(time.Duration(300+delay) * time.Millisecond); s.from.String() != server || delay == 0 || !s.at.Before(answers) {
			late = append(late, s)
		} else if s.at.Sub(start) > 300*time.Millisecond {
			s.from, s.to = netip.MustParseAddrPort(serverAddr), netip.MustParseAddrPort(hostA)
			s.data = append([]byte{s.data[0]}, append([]byte("cliA"), s.data[5:]...)...)
			late = append(late, s)
		}
	}
	return packets(late, more...)
}

// TestPreferredAddresses checks clients that migrate to preferred addresses, and those that only
// seem to.
func TestPreferredAddresses(t *testing.T) {
	const other, port, six = "198.51.100.99:443", "198.51.100.2:8443", "[2001:db8::99]:443"
	stays := traffic{client: hostA, toServer: "srv-id-A", toClient: "cliA", from: 300, to: 2000, pause: 20}
	brother := establishedBy(t, hostB, []byte("srv-id-B"), []byte("cliB"))
	beside := func(all []sent) []sent { return packets(append(brother[:len(brother):len(brother)], all...)) }
	socket := establishedBy(t, hostA, []byte("srv-id-B"), []byte("cliB")) // of the same socket
	for _, test := range []struct {
		name string
		all  []sent
		at   string
		want string
	}{
		{"another address", preferredScene(t, hostA, other, "new-id-1", 0), other, "A preferred_address medium"},
		{"another port", preferredScene(t, hostA, port, "new-id-1", 0), port, "A preferred_address medium"},
		{"the server answers later", preferredScene(t, hostA, other, "new-id-1", 200), other, "A preferred_address medium"},
		{"another socket", preferredScene(t, "192.0.2.1:60000", other, "new-id-1", 0), other, "A preferred_address medium"},
		{"another family", preferredScene(t, "[2001:db8::1]:50001", six, "new-id-1", 0), six, "A preferred_address low"},
		{"another family and port", preferredScene(t, "[2001:db8::1]:60000", six, "new-id-1", 0), six, "itself"},
		{"beside a brother", beside(preferredScene(t, hostA, other, "new-id-1", 0)), other, "A preferred_address medium"},
		{"another socket beside a brother", beside(preferredScene(t, "192.0.2.1:60000", other, "new-id-1", 0)), other, "itself preferred_address low of 2"},
		{"other IDs", preferredScene(t, hostA, other, "new5", 0), other, "itself"},
		{"the old path goes on", preferredScene(t, "192.0.2.1:60000", other, "new-id-1", 0, stays), other, "itself preferred_address low"},
		{"of one of two connections", packets(append(socket, preferredScene(t, hostA, other, "new-id-1", 0)...)), other, "itself preferred_address low of 2"},
	} {
		tracker := newTracker(t, nil)
		track(tracker, test.all)
		if got := outcome(tracker, test.at); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		bounded(t, tracker)
	}
}

// TestLatePreferredAddress checks frames of a client that moves to the preferred address before
// the server answers there.
func TestLatePreferredAddress(t *testing.T) {
	const preferred = "198.51.100.2:4435"
	tracker := newTracker(t, nil)
	for _, s := range preferredScene(t, hostA, preferred, "new-id-1", 400) {
		f := packet.Frame{Src: s.from, Dst: s.to, TTL: 64, Payload: s.data}
		b := f.Build(make([]byte, 6), make([]byte, 6))
		tracker.Packet(&Packet{Time: s.at, Link: LinkEthernet, Data: b, Length: len(b)})
	}
	c := only(t, tracker)
	if got, want := kinds(c), []ChangeKind{Probe, PreferredAddress}; !slices.Equal(got, want) {
		t.Fatalf("got changes %v, want %v", got, want)
	}
	change := c.PathChanges[1]
	if change.From.String() != serverAddr || change.To.String() != preferred || change.Confidence != Medium || !strings.Contains(change.Evidence, "the server answers at another address") {
		t.Errorf("got %+v", change)
	}
	if p := c.Paths[1]; !p.Active || !p.Validated || p.Server.String() != preferred || p.FromClient.Packets < 80 {
		t.Errorf("got active path %+v", p)
	}
}
