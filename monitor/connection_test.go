package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNoHello checks that the fields of TLS may be read of a connection without a
// hello.
func TestNoHello(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, establishedConn(t)[1:])
	c := only(t, tracker)
	if c.ServerName != "" || c.JA4 != "" || c.ALPN != nil {
		t.Errorf("got %+v, want nothing", c.TLS)
	}
	var b bytes.Buffer
	if err := NewEncoder(&b).Connection(c); err != nil {
		t.Fatal(err)
	}
	if line := b.String(); strings.Contains(line, `"sni"`) || strings.Contains(line, "tls") {
		t.Errorf("got %s", line)
	}
}

// TestCopy checks that changes of a Connection do not reach the tracker.
func TestCopy(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100) }))
	c := only(t, tracker)
	before, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	c.ALPN[0], c.PostQuantumGroups[0], c.Versions[0], c.ServerIDs[0] = "", "", 0, ""
	c.Paths[0].Validated = false
	after, err := json.Marshal(only(t, tracker))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("got %s, want %s", after, before)
	}
}

// TestLogValue checks the attributes of connections and events in a log.
func TestLogValue(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, establishedConn(t))
	c := *only(t, tracker)
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("seen", "connection", c)
	log.Info("moved", "it", Event{Kind: EventClosed, Connection: c, Reason: Idle})
	for _, want := range []string{
		"connection.confidence=proven", "connection.version=v1", "connection.sni=moves.example", "connection.client=" + clientAddr,
		"it.event=closed", "it.reason=idle", "it.connection.sni=moves.example",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s in it", b.String(), want)
		}
	}
}

// TestFieldNames checks that all names in JSON are in snake case, except for protocols.
func TestFieldNames(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100) }))
	stats, c := tracker.Stats(), only(t, tracker)
	if stats.Connections[Proven] != 1 || len(stats.Connections) != len(confidenceNames) {
		t.Errorf("got %v connections, want one that is proven", stats.Connections)
	}
	var b bytes.Buffer
	out := NewEncoder(&b)
	event := Event{Kind: EventPathChanged, Connection: *c, Change: new(PathChange), RTT: 1, Reason: Idle}
	if err := errors.Join(out.Stats(&stats), out.Connection(c), out.Event(&event)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"type":"stats"`, `"type":"connection"`, `"type":"event"`, `"proven":1`, `"tables":{"connections":{"entries":1,`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s in it", b.String(), want)
		}
	}
	for _, name := range regexp.MustCompile(`"([^"]*)":`).FindAllStringSubmatch(b.String(), -1) {
		if slices.Contains(protocolGroups[:], name[1]) {
			continue // a protocol has its own name
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(name[1]) {
			t.Errorf("a field is called %q", name[1])
		}
	}
}

// TestConnectionsConcurrent checks that a loop over connections does not block
// packets, and skips connections that are removed meanwhile.
func TestConnectionsConcurrent(t *testing.T) {
	tracker := newTracker(t, &Config{MaxConnections: 3})
	shorts(t, tracker, 3)
	var seen []uint64
	for c := range tracker.Connections() {
		if seen = append(seen, c.Number); len(seen) == 1 {
			shorts(t, tracker, 5) // evicts those that are listed
		}
		if len(c.Paths) == 0 {
			t.Errorf("connection %d has no path", c.Number)
		}
	}
	if !slices.Equal(seen, []uint64{3}) {
		t.Errorf("got connections %v, want the third", seen)
	}
}
