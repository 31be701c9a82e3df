package monitor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// closeFrame returns a CONNECTION_CLOSE frame.
func closeFrame(code uint16, phrase string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x1c}, 0x4000|code)
	b = append(b, 0, byte(len(phrase)&0x3f))
	return append(b, phrase...)
}

// begunBy returns a client's Initial, and an answer with frames.
func begunBy(tb testing.TB, frames []byte) []sent {
	first := []byte("original")
	return []sent{
		at(0, clientAddr, serverAddr, initialOf(tb, first, cliID, 0, cryptoFrame(0, helloOf("state.example")))),
		at(10, serverAddr, clientAddr, sealed(tb, wire.Version1, wire.Server, first, cliID, oldID, 0, frames)),
	}
}

// closedByClient returns an Initial with which a client closes its connection.
func closedByClient(tb testing.TB) sent {
	return at(20, clientAddr, serverAddr, sealed(tb, wire.Version1, wire.Client, []byte("original"), oldID, cliID, 1, closeFrame(0x128, "")))
}

// TestState checks the states, and how connections have ended.
func TestState(t *testing.T) {
	ack := []byte{0x02, 0, 0, 0, 0}
	open := begunBy(t, cryptoFrame(0, serverHelloOf()))
	open = addShorts(open, 5, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
	refused := begunBy(t, closeFrame(2, "no room\xff"))
	// A forger closes the connection in the middle of its handshake, and the server goes on.
	forged := addShorts(slices.Clone(refused), 12, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
	repeated := slices.Clone(refused)
	for range 20 {
		repeated = append(repeated, refused[0], refused[1])
	}
	later := at(40_000, "192.0.2.77:9", "192.0.2.78:9", []byte("another protocol"))
	awake := open[len(open)-1]
	awake.at = later.at.Add(time.Second)
	end := func(by string, code uint64, err, phrase string) *Ending {
		return &Ending{Time: start.UTC().Add(10 * time.Millisecond), By: by, Code: code, Error: err, Phrase: phrase}
	}
	clientEnd := end("client", 0x128, "0x128 CRYPTO_ERROR (handshake failure)", "")
	clientEnd.Time = clientEnd.Time.Add(10 * time.Millisecond)
	appEnd := end("server", 0xc, "0xc APPLICATION_ERROR", "")
	appEnd.Application = true
	for name, test := range map[string]struct {
		all   []sent
		want  State
		ended *Ending
	}{
		"begins":                    {open[:1], StateHandshake, nil},
		"answered":                  {begunBy(t, ack), StateHandshake, nil},
		"open":                      {open, StateOpen, nil},
		"mid-flow":                  {open[2:], StateOpen, nil},
		"of the client alone":       {sentBy(open, clientAddr), StateOpen, nil},
		"of the server alone":       {sentBy(open, serverAddr), StateOpen, nil},
		"silent":                    {append(slices.Clone(open), later), StateSilent, nil},
		"silent, and goes on":       {append(slices.Clone(open), later, awake), StateOpen, nil},
		"never answered":            {append(slices.Clone(open[:1]), later), StateSilent, nil},
		"refused":                   {refused, StateEnded, end("server", 2, "0x2 CONNECTION_REFUSED", "no room")},
		"refused, and silent":       {append(slices.Clone(refused), later), StateEnded, end("server", 2, "0x2 CONNECTION_REFUSED", "no room")},
		"refused again and again":   {repeated, StateEnded, end("server", 2, "0x2 CONNECTION_REFUSED", "no room")},
		"refused, and goes on":      {forged, StateOpen, nil},
		"closed by the client":      {append(begunBy(t, ack), closedByClient(t)), StateEnded, clientEnd},
		"closed by the application": {begunBy(t, closeFrame(0xc, "")), StateEnded, appEnd},
		"no such code":              {begunBy(t, closeFrame(0x3fff, "")), StateEnded, end("server", 0x3fff, "0x3fff", "")},
		"forged":                    {append(slices.Clone(open), refused[1], closedByClient(t)), StateOpen, nil},
	} {
		tracker := newTracker(t, nil)
		track(tracker, test.all)
		c := connections(tracker)[0]
		if c.State != test.want || (c.Ended == nil) != (test.ended == nil) || c.Ended != nil && *c.Ended != *test.ended {
			t.Errorf("%s: got %v, %+v, want %v, %+v", name, c.State, c.Ended, test.want, test.ended)
		}
		counted(t, tracker)
		if got := tracker.Stats().States; got[test.want] != 1 || len(got) != len(stateNames) {
			t.Errorf("%s: got %v, want one that is %v, and all states", name, got, test.want)
		}
	}
}

// TestSilenceIsCountedOnce checks that connections are counted as silent when they are, whichever of
// them goes on or is removed.
func TestSilenceIsCountedOnce(t *testing.T) {
	tracker := newTracker(t, &Config{Idle: time.Hour, MaxConnections: 4})
	port := func(n int) string { return fmt.Sprintf("192.0.2.1:%d", 10_000+n) }
	begin := func(n, ms int) {
		id := []byte(fmt.Sprintf("original%d", n))
		tracker.Packet(frame(at(ms, port(n), serverAddr, initialOf(t, id, nil, byte(ms/1000), cryptoFrame(0, helloOf("a.example"))))))
	}
	check := func(when string, silent, handshake int) {
		t.Helper()
		counted(t, tracker)
		if got := tracker.Stats().States; got[StateSilent] != silent || got[StateHandshake] != handshake {
			t.Errorf("%s: got %v, want %d silent and %d in their handshake", when, got, silent, handshake)
		}
	}
	for n := range 4 {
		begin(n, n*10_000)
	}
	check("at the beginning", 1, 3)
	tracker.tick(start.Add(45 * time.Second).UnixNano())
	check("15 seconds later", 2, 2)
	begin(1, 46_000) // the one that has fallen silent last
	check("one goes on", 1, 3)
	begin(0, 47_000)
	check("the other one goes on", 0, 4)
	tracker.tick(start.Add(80 * time.Second).UnixNano())
	check("all are silent", 4, 0)
	begin(4, 81_000) // makes the oldest leave
	check("one more", 3, 1)
}

// TestEndOfRemoved checks the last state of connections that are removed.
func TestEndOfRemoved(t *testing.T) {
	open := establishedConn(t)
	last := open[len(open)-1].at
	for name, test := range map[string]struct {
		all   []sent
		conf  Config
		want  State
		cause string
	}{
		"idle":         {append(slices.Clone(open), at(120_000, "192.0.2.77:9", "192.0.2.78:9", []byte("later"))), Config{Idle: time.Minute}, StateEnded, "idle"},
		"closed, idle": {append(begunBy(t, closeFrame(2, "")), at(120_000, "192.0.2.77:9", "192.0.2.78:9", []byte("later"))), Config{Idle: time.Minute}, StateEnded, "closed in the handshake by the server: 0x2 CONNECTION_REFUSED"},
		"evicted":      {after(open, establishedBy(t, "192.0.2.1:50001", newID, cliNo)), Config{MaxConnections: 1}, StateOpen, ""},
	} {
		tracker := newTracker(t, &test.conf)
		track(tracker, test.all)
		events := slices.DeleteFunc(tracker.take(), func(e Event) bool { return e.Kind != EventClosed })
		if len(events) != 1 {
			t.Fatalf("%s: got %d events, want 1", name, len(events))
		}
		c := events[0].Connection
		if c.State != test.want || (c.Ended == nil) != (test.cause == "") || c.Ended != nil && c.Ended.String() != test.cause {
			t.Errorf("%s: got %v, %v, want %v, %v", name, c.State, c.Ended, test.want, test.cause)
		}
		if test.cause == "idle" && !c.Ended.Time.Equal(last) {
			t.Errorf("%s: ended at %v, want %v", name, c.Ended.Time, last)
		}
	}
}

// TestStateInJSON checks the names in JSON.
func TestStateInJSON(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, begunBy(t, closeFrame(2, "busy")))
	text, err := json.Marshal(only(t, tracker))
	const want = `"state":"ended","ended":{"time":"2023-11-14T22:13:20.01Z","cause":"close","by":"server","code":2,"error":"0x2 CONNECTION_REFUSED","phrase":"busy"}`
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("got %s, %v, want %s in it", text, err, want)
	}
}

// TestStateOfPotential checks the state of a connection whose packets all came before a connection of its hosts
// showed that it is one.
func TestStateOfPotential(t *testing.T) {
	const port = "198.51.100.2:4443"
	begin := addShorts(establishedConn(t), 2, shortHeaders{clientAddr, port, []byte("early-id"), 100}, shortHeaders{port, clientAddr, []byte("cliE"), 100})
	early := begin[len(begin)-4:]
	tracker := newTracker(t, nil)
	track(tracker, after(early, establishedBy(t, "192.0.2.1:50009", oldID, cliID)))
	found := 0
	for _, c := range connections(tracker) {
		if c.Confidence == MidFlow {
			found++
			if c.State != StateOpen || c.FromClient.Packets != 2 || c.FromServer.Packets != 2 {
				t.Errorf("got %v after %d and %d packets", c.State, c.FromClient.Packets, c.FromServer.Packets)
			}
		}
	}
	if found != 1 {
		t.Errorf("got %d connections that began before, want 1", found)
	}
	counted(t, tracker)
}
