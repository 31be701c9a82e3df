package monitor

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/wire"
)

// googleLong returns a long header of one of Google's own versions.
func googleLong(version string) []byte {
	return append([]byte{0xc0, version[0], version[1], version[2], version[3], 0x50, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1200)...)
}

// TestSpoofedGoogle checks that a forged packet with one of Google's versions
// changes no connection between the same endpoints, and does not prevent one from
// beginning.
func TestSpoofedGoogle(t *testing.T) {
	for _, id := range [][]byte{cliID, nil} {
		testSpoofedGoogle(t, establishedBy(t, clientAddr, oldID, id))
	}
}

func testSpoofedGoogle(t *testing.T, live []sent) {
	t.Helper()
	spoof := googleLong("Q046")
	for name, all := range map[string][]sent{
		"within": append(live[:10:10], append([]sent{at(100, clientAddr, serverAddr, spoof), at(100, serverAddr, clientAddr, spoof)}, live[10:]...)...),
		"before": append([]sent{at(0, clientAddr, serverAddr, spoof), at(0, serverAddr, clientAddr, spoof)}, live...),
		"all along": slices.Collect(func(yield func(sent) bool) {
			for _, s := range live {
				if !yield(sent{at: s.at, from: s.from, to: s.to, data: spoof}) || !yield(s) {
					return
				}
			}
		}),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		bounded(t, tracker)
		if s := tracker.Stats(); name == "within" && s.Bogus != 2 {
			t.Errorf("%s: got %d bogus, want 2", name, s.Bogus)
		}
		found := false
		for _, c := range connections(tracker) {
			if c.Confidence != Proven {
				continue
			}
			found = true
			if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(live)) || c.Version != Version(wire.Version1) || len(c.Versions) != 1 {
				t.Errorf("%s: got %d packets of %v, want %d of v1", name, got, c.Versions, len(live))
			}
		}
		if !found {
			t.Errorf("%s: the connection is not known", name)
		}
	}
}

// chloOf returns the first message of a client in Google QUIC.
func chloOf(serverName, userAgent string) []byte {
	padding := strings.Repeat("-", 600)
	msg := []byte("CHLO\x03\x00\x00\x00")
	end := 0
	for _, tag := range [][2]string{{"PAD\x00", padding}, {"SNI\x00", serverName}, {"UAID", userAgent}} {
		end += len(tag[1])
		msg = binary.LittleEndian.AppendUint32(append(msg, tag[0]...), uint32(end))
	}
	return append(msg, padding+serverName+userAgent...)
}

// googleCHLO returns a client's packet of a version of Google QUIC with a part of a CHLO.
func googleCHLO(tb testing.TB, version string, offset int, part []byte) []byte {
	tb.Helper()
	id, hash := []byte("googleid"), make([]byte, 12)
	frame := binary.BigEndian.AppendUint16([]byte{0xa4, 1}, uint16(offset)) // STREAM
	frame = append(binary.BigEndian.AppendUint16(frame, uint16(len(part))), part...)
	if version >= "Q047" {
		frame = append(cryptoFrame(offset, part), make([]byte, max(0, 1200-len(part)))...)
		frame[0] = 0x08
	}
	switch {
	case version < "Q044":
		header := append(append([]byte{0x09}, id...), version...)
		return slices.Concat(header, []byte{1}, hash, frame)
	case version < "Q049":
		header := append(append([]byte{0xc3}, version...), 0x50)
		return slices.Concat(header, id, []byte{0, 0, 0, 1}, hash, frame)
	}
	keys, err := wire.NewInitialKeys(wire.Version(binary.BigEndian.Uint32([]byte(version))), id, wire.Client)
	if err != nil {
		tb.Fatal(err)
	}
	header := append(append([]byte{0xc0}, version...), byte(len(id)))
	header = append(append(header, id...), 0, 0)
	header = append(binary.BigEndian.AppendUint16(header, 0x4000|uint16(1+len(frame)+wire.Overhead)), 1)
	packet, err := keys.Seal(nil, header, frame)
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// googleConn returns a connection with Google QUIC whose client sends a CHLO in parts, which begin at
// these offsets.
func googleConn(tb testing.TB, version string, begins ...int) (all []sent) {
	tb.Helper()
	msg := chloOf("google.example", "Browser/1.0")
	for i, begin := range begins {
		end := len(msg)
		for _, other := range begins {
			if other > begin {
				end = min(end, other)
			}
		}
		all = append(all, at(i, clientAddr, serverAddr, googleCHLO(tb, version, begin, msg[begin:end])))
	}
	answer := append([]byte{0x0c}, make([]byte, 1000)...)
	if version >= "Q044" {
		answer = append([]byte{0xd3, version[0], version[1], version[2], version[3], 0x05}, make([]byte, 1000)...)
	}
	return append(all, at(20, serverAddr, clientAddr, answer), at(21, clientAddr, serverAddr, append([]byte{0x4c}, make([]byte, 60)...)))
}

// TestGoogleHello checks that the CHLO is read, in one packet or in several.
func TestGoogleHello(t *testing.T) {
	for name, all := range map[string][]sent{
		"Q039":                  googleConn(t, "Q039", 0),
		"Q043":                  googleConn(t, "Q043", 0),
		"Q046":                  googleConn(t, "Q046", 0),
		"Q048":                  googleConn(t, "Q048", 0),
		"Q050":                  googleConn(t, "Q050", 0),
		"Q043, two packets":     googleConn(t, "Q043", 0, 300),
		"Q046, three packets":   googleConn(t, "Q046", 0, 30, 620),
		"Q046, out of order":    googleConn(t, "Q046", 300, 0),
		"Q050, out of order":    googleConn(t, "Q050", 640, 300, 0),
		"Q046, again and again": append(googleConn(t, "Q046", 0), googleConn(t, "Q046", 0)...),
		"the second one":        {at(0, clientAddr, serverAddr, googleCHLO(t, "Q043", 1024, chloOf("google.example", "Browser/1.0")))},
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		c := only(t, tracker)
		if c.Confidence != GoogleQUIC || c.ServerName != "google.example" || c.UserAgent != "Browser/1.0" || c.Paths[0].Client.String() != clientAddr {
			t.Errorf("%s: got %v of %q, %q from %v", name, c.Confidence, c.ServerName, c.UserAgent, c.Paths[0].Client)
		}
		if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
			t.Errorf("%s: got %d packets, want %d", name, got, len(all))
		}
		identified := 0
		for _, e := range balancedEvents(t, tracker) {
			if e.Kind == EventIdentified {
				identified++
			}
		}
		if identified != 1 || tracker.index.handshakes.len() != 0 {
			t.Errorf("%s: identified %d times, %d handshakes are being read", name, identified, tracker.index.handshakes.len())
		}
	}
}

// balancedEvents returns the events after checking the counters.
func balancedEvents(tb testing.TB, t *Tracker) []Event {
	tb.Helper()
	events := balanced(tb, t)
	timely(tb, events)
	return events
}

// TestGoogleRoles checks that a CHLO says who is the client, whatever the ports are.
func TestGoogleRoles(t *testing.T) {
	tracker := newTracker(t, nil)
	tracker.Packet(frame(at(0, "192.0.2.1:443", "198.51.100.2:50000", googleCHLO(t, "Q046", 0, chloOf("roles.example", "")))))
	if c := only(t, tracker); c.Paths[0].Client.String() != "192.0.2.1:443" || c.ServerName != "roles.example" || c.UserAgent != "" {
		t.Errorf("got client %v, %q, %q", c.Paths[0].Client, c.ServerName, c.UserAgent)
	}
}

// TestGoogleUnreadable checks that what is not a whole CHLO gives no name.
func TestGoogleUnreadable(t *testing.T) {
	whole := chloOf("unread.example", "Browser/1.0")
	cut := frame(at(0, clientAddr, serverAddr, googleCHLO(t, "Q046", 0, whole)))
	cut.Data = cut.Data[:700]
	huge := slices.Clone(whole)
	binary.LittleEndian.PutUint32(huge[28:], 1<<20) // where the last value ends
	for name, p := range map[string]*Packet{
		"captured in part": cut,
		"a part":           frame(at(0, clientAddr, serverAddr, googleCHLO(t, "Q046", 0, whole[:600]))),
		"another message":  frame(at(0, clientAddr, serverAddr, googleCHLO(t, "Q046", 0, append([]byte("REJ\x00"), whole[4:]...)))),
		"too large":        frame(at(0, clientAddr, serverAddr, googleCHLO(t, "Q046", 0, huge))),
		"far away":         frame(at(0, clientAddr, serverAddr, googleCHLO(t, "Q050", 16000, make([]byte, 1000)))),
	} {
		tracker := newTracker(t, nil)
		tracker.Packet(p)
		if c := only(t, tracker); c.Confidence != GoogleQUIC || c.ServerName != "" || c.UserAgent != "" {
			t.Errorf("%s: got %v, %q, %q", name, c.Confidence, c.ServerName, c.UserAgent)
		}
		if got, want := tracker.Stats().HelloErrors, name == "too large" || name == "far away"; (got == 1) != want {
			t.Errorf("%s: %d hello errors", name, got)
		}
	}
}

// TestGoogleFilter checks that a filter by name waits for the whole CHLO.
func TestGoogleFilter(t *testing.T) {
	for filter, want := range map[string]int{"name google.example": 1, "not name google.example": 0} {
		for _, version := range []string{"Q043", "Q046"} {
			tracker := newTracker(t, &Config{Filter: mustFilter(t, filter)})
			track(tracker, googleConn(t, version, 0, 300))
			events := slices.DeleteFunc(tracker.take(), func(e Event) bool { return e.Kind != EventNew })
			if got := len(connections(tracker)); got != want || len(events) != want {
				t.Errorf("%s, %s: got %d connections and %d events, want %d", filter, version, got, len(events), want)
			}
		}
	}
}
