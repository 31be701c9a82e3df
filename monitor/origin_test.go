package monitor

import (
	"regexp"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/wire"
)

// uidsOf returns the UIDs of the connections in packets.
func uidsOf(tb testing.TB, all []sent) (out []string) {
	tb.Helper()
	tracker := newTracker(tb, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		out = append(out, c.UID)
	}
	return out
}

// uidOfOnly returns the only UID.
func uidOfOnly(tb testing.TB, all []sent) string {
	tb.Helper()
	uids := uidsOf(tb, all)
	if len(uids) != 1 {
		tb.Fatalf("got %d connections, want 1", len(uids))
	}
	return uids[0]
}

// TestUID checks that all monitors that see the beginning of a connection give it one UID,
// and no other connection the same.
func TestUID(t *testing.T) {
	all := establishedConn(t)
	uid := uidOfOnly(t, all)
	if !regexp.MustCompile(`^C[0-9A-Za-z]{17}$`).MatchString(uid) {
		t.Errorf("got %q", uid)
	}
	later := daysLater(all, 1000)
	for name, same := range map[string][]sent{
		"again": all, "later": later, "from the client alone": fromClient(all), "the first packet": all[:1],
	} {
		if got := uidOfOnly(t, same); got != uid {
			t.Errorf("%s: got %s, want %s", name, got, uid)
		}
	}
	for name, other := range map[string][]sent{
		"another client":       establishedBy(t, "192.0.2.7:50000", oldID, cliID),
		"another ID":           establishedBy(t, clientAddr, []byte("other-id"), cliID),
		"the client's ID":      establishedBy(t, clientAddr, oldID, []byte("cli2")),
		"the same one by IPv6": toIPv6(all),
	} {
		if got := uidOfOnly(t, other); got == uid {
			t.Errorf("%s: got the same, %s", name, got)
		}
	}
}

// daysLater returns packets at a later time.
func daysLater(all []sent, days int) (out []sent) {
	for _, s := range all {
		out = append(out, sent{at: s.at.AddDate(0, 0, days), from: s.from, to: s.to, data: s.data})
	}
	return out
}

// fromClient returns the packets of the first packet's sender.
func fromClient(all []sent) (out []sent) {
	for _, s := range all {
		if s.from == all[0].from {
			out = append(out, s)
		}
	}
	return out
}

// TestUIDOfRest checks the UIDs of connections whose first Initial was not captured: two monitors
// agree if they begin with the same kind of packets.
func TestUIDOfRest(t *testing.T) {
	all := establishedConn(t)
	handshake, shorts := uidOfOnly(t, all[1:]), uidOfOnly(t, all[10:])
	if got := uidOfOnly(t, all[20:]); got != shorts {
		t.Errorf("two monitors that see short headers: got %s and %s", shorts, got)
	}
	reply := all[1]
	reply.from, reply.to = reply.to, reply.from
	reply.data = append([]byte{0xe0, 0, 0, 0, 1, 8}, oldID...)
	reply.data = append(append(append(reply.data, 4), cliID...), 0x40, 100)
	reply.data = append(reply.data, make([]byte, 100)...)
	if got := uidOfOnly(t, append([]sent{reply}, all[2:]...)); got != handshake {
		t.Errorf("the client's Handshake packet first: got %s, want %s as with the server's", got, handshake)
	}
	if whole := uidOfOnly(t, all); whole == handshake || handshake == shorts {
		t.Errorf("got %s, %s and %s", whole, handshake, shorts)
	}
}

// TestUIDStays checks that all events of a connection have one UID, also if its first packets
// came in another order.
func TestUIDStays(t *testing.T) {
	all := play(t, &quic.Config{Versions: v1}, false, func(s *scene) { s.exchange(s.dial(nil), 20000) })
	zeroRTT := sealedZeroRTT(all[0])
	for name, packets := range map[string][]sent{
		"in order": all, "the server's first": append([]sent{all[1], all[0]}, all[2:]...), "0-RTT first": append([]sent{zeroRTT}, all...),
	} {
		tracker := newTracker(t, nil)
		track(tracker, packets)
		c := only(t, tracker)
		for _, e := range tracker.take() {
			if e.Connection.UID != c.UID {
				t.Errorf("%s: got %s in the event %v, want %s", name, e.Connection.UID, e.Kind, c.UID)
			}
		}
		if want := uidOfOnly(t, all); name == "0-RTT first" && c.UID != want {
			t.Errorf("%s: got %s, want %s", name, c.UID, want)
		}
	}
}

// sealedZeroRTT returns a 0-RTT packet with the IDs of an Initial.
func sealedZeroRTT(initial sent) sent {
	h, err := wire.NoDialect.Parse(initial.data)
	if err != nil {
		panic(err)
	}
	b := append([]byte{0xd0, 0, 0, 0, 1, byte(len(h.DstID))}, h.DstID...)
	b = append(append(append(b, byte(len(h.SrcID))), h.SrcID...), 0x40, 100)
	initial.data = append(b, make([]byte, 100)...)
	return initial
}

// TestFirstIDs checks the connection IDs that both ends have chosen in the handshake, and the
// token.
func TestFirstIDs(t *testing.T) {
	retry := play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 20000) })
	tracker := newTracker(t, nil)
	track(tracker, retry)
	c := only(t, tracker)
	if c.ClientID == nil || c.ClientID.Len() != 4 || c.ServerID == nil || c.ServerID.Len() != 8 {
		t.Errorf("got %v and %v, want IDs of 4 and 8 bytes", c.ClientID, c.ServerID)
	}
	if c.TokenLength == 0 || c.Retries == 0 {
		t.Errorf("got a token of %d bytes and %d Retries", c.TokenLength, c.Retries)
	}
	if c.ServerID != nil && c.ServerID.String() == c.OriginalIDs[1] {
		t.Errorf("got %v, the ID of the Retry", c.ServerID)
	}

	tracker = newTracker(t, nil)
	track(tracker, []sent{at(0, clientAddr, serverAddr, initialOf(t, []byte("original"), nil, 0, cryptoFrame(0, helloOf("a.example"))))})
	if c = only(t, tracker); c.ClientID == nil || c.ClientID.Len() != 0 || c.ServerID != nil {
		t.Errorf("got %v and %v, want an ID without bytes, and none", c.ClientID, c.ServerID)
	}
}

// TestVersionNames checks the names of versions.
func TestVersionNames(t *testing.T) {
	for version, want := range map[Version]string{
		1: "1", 0x6b3343cf: "2", 0xff00001d: "draft-29", 0x51303436: "Q046", 0: "", 0xfaceb002: "mvfst 0xfaceb002",
	} {
		if got := version.Name(); got != want {
			t.Errorf("%#x: got %q, want %q", uint32(version), got, want)
		}
	}
}
