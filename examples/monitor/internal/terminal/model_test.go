package terminal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/quicway/quicway/monitor"
)

// TestList checks the whole screen of 80 x 24 cells.
func TestList(t *testing.T) {
	v := newView(t)
	v.want("No QUIC connections yet.")
	v.show(three())
	got := strings.Split(v.screen(), "\n")
	if len(got) != 24 {
		t.Errorf("got %d lines, want 24", len(got))
	}
	v.want("3 connections", "sorted by AGE▲", "NAME", "CLIENT", "SERVER", "ALPN", "RTT", "UP/s", "DN/s", "AGE▲",
		"banana.test", "192.0.2.3:50000", "198.51.100.2:443", "h3", "4.0ms", "300", "900", "10s",
		"cherry.test", "50", "450", "20s", "apple.test", "67", "300", "30s",
		"No connection has changed its path yet.", "q quit")
}

// TestSort checks the order by each column, in both directions.
func TestSort(t *testing.T) {
	v := newView(t)
	v.size(200, 24)
	v.show(three())
	order := func() string {
		var out string
		for _, r := range v.list.rows {
			out += r.name[:1]
		}
		return out
	}
	for i, want := range map[string]string{"NAME": "abc", "CLIENT": "cab", "RTT": "bac", "PKTS": "bac", "UP/s": "bac", "DN/s": "bca", "AGE": "bca"} {
		for columns[v.list.sorted].title != i {
			v.press("right")
		}
		if got := order(); got != want {
			t.Errorf("by %s: got %s, want %s", i, got, want)
		}
		v.want("sorted by "+i, i+v.list.arrow())
		v.press("r")
		reversed := []byte(want)
		slices.Reverse(reversed)
		if got := order(); got != string(reversed) {
			t.Errorf("by %s, reversed: got %s, want %s", i, got, reversed)
		}
		v.press("left", "right")
	}
}

// TestSortHidden checks that a column that does not fit appears when the list is sorted by it.
func TestSortHidden(t *testing.T) {
	v := newView(t)
	v.show(three())
	v.lacks("PKTS")
	v.press("left")
	v.want("sorted by PKTS▼", "PKTS▼", "banana", "90", "apple", "60")
}

// TestFilter checks that the list follows the filter as it is typed.
func TestFilter(t *testing.T) {
	v := newView(t)
	v.show(three())
	v.press("/", "TE")
	v.want("filter (3 of 3): TE", "banana", "cherry", "apple")
	v.press("st 192.0.2.2:")
	v.want("filter (1 of 3): TEst 192.0.2.2:", "apple")
	v.lacks("banana")
	v.press("q")
	v.want("No connection matches the filter.")
	v.press("backspace", "ctrl+w", "proven", "enter")
	v.want("filter (3 of 3): TEst proven", "q quit")
	v.press("/", "ctrl+u", "ended")
	v.want("No connection matches the filter.")
	v.press("esc")
	v.want("banana", "cherry", "apple")
	v.lacks("filter (")
	v.press("/", "apple", "enter", "esc")
	v.lacks("filter (")
	v.press("/")
	v.send(tea.PasteMsg{Content: "a\x1bp\np\u202e"})
	v.want(`filter (0 of 3): a\x1bp p\u202e`)
	v.send(tea.PasteMsg{Content: strings.Repeat("x", 5000)})
	if len(v.list.filter) > maxFilter || v.quitting {
		t.Errorf("the filter has %d bytes; quit: %v", len(v.list.filter), v.quitting)
	}
}

// TestSelection checks that the selection stays at the top until it is moved, and then with
// its connection.
func TestSelection(t *testing.T) {
	v := newView(t)
	selected := func() string { return v.list.selectedRow().name }
	v.show(three()[:2])
	if got := selected(); got != "cherry.test" {
		t.Errorf("got %s, want the first row", got)
	}
	v.show(three())
	if got := selected(); got != "banana.test" {
		t.Errorf("got %s, want the new first row", got)
	}
	v.press("down")
	v.show(append(three(), connection(4, "zero.test", 1)))
	if got := selected(); got != "cherry.test" {
		t.Errorf("got %s, want the connection that was selected", got)
	}
	if line := v.styled("cherry"); !strings.Contains(line, "\x1b[7m") {
		t.Errorf("the selected row has the style %q", line)
	}
	v.press("end")
	if got := selected(); got != "apple.test" {
		t.Errorf("got %s, want the last", got)
	}
	v.press("home")
	v.show(append(three(), connection(4, "zero.test", 1), connection(5, "new.test", 0)))
	if got := selected(); got != "new.test" {
		t.Errorf("got %s, want the new first row", got)
	}
	v.press("/", "nobody", "enter", "enter", "down", "home")
	if v.details != nil || v.list.selectedRow() != nil {
		t.Error("a row is selected in an empty list")
	}
}

// TestScroll checks that the selected row is visible in a long list.
func TestScroll(t *testing.T) {
	v := newView(t)
	var many []monitor.Connection
	for n := range uint64(100) {
		many = append(many, connection(n+1, fmt.Sprintf("n%02d.test", n), 100-int(n)))
	}
	v.show(many)
	for _, step := range []struct{ key, want, lacks string }{
		{"", "n99.", "n80."}, {"pgdown", "n82.", "n60."}, {"end", "n00.", "n20."}, {"pgup", "n17.", "n20."}, {"home", "n99.", "n80."}, {"up", "n99.", "n80."},
	} {
		v.press(step.key)
		v.want(step.want)
		v.lacks(step.lacks)
	}
}

// TestDetails checks that Enter opens the details of the selected connection, and that they
// have all fields.
func TestDetails(t *testing.T) {
	v := newView(t)
	v.size(130, 70)
	all := three()
	all[0] = full()
	v.show(all)
	v.press("down", "enter")
	v.want("Connection 1  cherry.test", "Reading the connection...")
	if v.followed != 1 {
		t.Fatalf("the details of %d were asked for, want 1", v.followed)
	}
	v.show(all)
	v.want("Connection 1  cherry.test", "state", `ended: closed in the handshake by the server: 0x2 CONNECTION_REFUSED, at 12:00:00.000, "no\x1b"`,
		"confidence", "handshake: it fits", "UID", "Cabc", "Community ID", "1:xyz", "history", "IiHh",
		"version", "v2; seen: v1, v2", "server name", "cherry.test", "ALPN", "h3, hq and 7 more", "user agent", "Agent/1", "JA4", "q13d0312h3",
		"TLS", "1.3 TLS_AES_128_GCM_SHA256 x25519", "ECH", "yes", "post-quantum", "key share: yes; groups: X25519MLKEM768",
		"token, bytes", "39", "Retry packets", "31", "Version Negotiation", "32", "0-RTT packets", "33",
		"original", "0d0d, 0e0e", "in the handshake", "client -, server -", "of the client", "c1c1", "of the server", "5e5e", "changes on a path", "34",
		"spin bit", "20.0ms", "handshake", "server side 15.0ms, client side 4.0ms", "samples", "40, least 1.0ms, median 2.0ms, jitter 3.0ms", "trend", "▅",
		"from the client", "10 packets, 1.0kB (ECT(0) 41, ECT(1) 42, CE 43)", "from the server", "20 packets, 9.0kB", "glued packets", "35",
		"first packet", "11:59:40.000 (21s ago)", "latest packet", "12:00:00.000 (1s ago)", "duration", "44ms", "direction", "out", "interface", "36",
		"1 path and 37 earlier", "192.0.2.1:50000 → 198.51.100.2:443  validated, in use", "11:59:40.000 to 12:00:00.000",
		"spin bit 20.0ms, server side 12.0ms, client side 8.0ms", "round trips: 45,",
		"1 path change and 38 later ones", "11:59:50.000  rebinding  192.0.2.9:1 → 192.0.2.1:50000", "high: the same connection ID")
	v.press("esc")
	v.want("sorted by")
	if v.followed != 0 {
		t.Errorf("connection %d is still followed", v.followed)
	}
}

// full returns a connection with all fields.
func full() monitor.Connection {
	c := connection(1, "cherry.test", 20)
	c.Confidence, c.Evidence = monitor.HandshakeShaped, "it fits"
	c.Version, c.Versions = 0x6b3343cf, []monitor.Version{1, 0x6b3343cf}
	c.OriginalID, c.OriginalIDs = "0d0d", []string{"0d0d", "0e0e"}
	c.ClientIDs, c.ServerIDs, c.Rotations = []string{"c1c1"}, []string{"5e5e"}, 34
	c.ALPN, c.ALPNOmitted, c.JA4, c.ECH = []string{"h3", "hq"}, 7, "q13d0312h3", true
	c.PostQuantum, c.PostQuantumGroups = true, []string{"X25519MLKEM768"}
	c.Cipher, c.Group, c.TLSVersion = "TLS_AES_128_GCM_SHA256", "x25519", "1.3"
	c.PathsDropped, c.PathChangesOmitted = 37, 38
	c.Paths[0].SpinRTT, c.Paths[0].SpinServerSide, c.Paths[0].SpinClientSide = 20e6, 12e6, 8e6
	c.PathChanges = []monitor.PathChange{{
		Kind: monitor.Rebinding, Time: start.Add(-10 * time.Second), From: netip.MustParseAddrPort("192.0.2.9:1"),
		To: c.Paths[0].Client, Confidence: monitor.High, Evidence: "the same connection ID",
	}}
	c.Handshake = monitor.HandshakeRTT{ServerSide: 15e6, ClientSide: 4e6}
	c.SpinRTT, c.Retries, c.Negotiations, c.ZeroRTT, c.Glued = 20e6, 31, 32, 33, 35
	c.Direction, c.Interface = "out", 36
	c.State, c.UserAgent = monitor.StateEnded, "Agent/1"
	c.Ended = &monitor.Ending{Time: start, By: "server", Code: 2, Error: "0x2 CONNECTION_REFUSED", Phrase: "no\x1b"}
	c.UID, c.CommunityID, c.History, c.TokenLength = "Cabc", "1:xyz", "IiHh", 39
	c.ClientID, c.ServerID, c.Duration = new(monitor.ID), new(monitor.ID), 44e6
	c.RTT = monitor.RTTStats{Samples: 40, Min: 1e6, Median: 2e6, Jitter: 3e6}
	c.Paths[0].RTT = monitor.RTTStats{Samples: 45}
	c.FromClient.ECN = monitor.ECN{ECT0: 41, ECT1: 42, CE: 43}
	return c
}

// TestOthers checks that fields that the details do not know are shown by their JSON names.
func TestOthers(t *testing.T) {
	before := known
	defer func() { known = before }()
	known = slices.DeleteFunc(slices.Clone(known), func(name string) bool { return name == "evidence" || name == "retries" })
	c := full()
	c.Evidence = "a\x1bb"
	p := page{width: 80}
	others(&p, &c)
	got := ansi.Strip(strings.Join(p.lines, "\n")) + "\n"
	for _, want := range []string{"\nMore\n", "\n  evidence            a\\x1bb\n", "\n  retries             31\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	if strings.Contains(got, "paths") {
		t.Errorf("got a known field: %q", got)
	}
}

// TestDetailsScroll checks that long details can be scrolled.
func TestDetailsScroll(t *testing.T) {
	v := newView(t)
	v.show([]monitor.Connection{full()})
	v.press("enter")
	v.show([]monitor.Connection{full()})
	v.lacks("path change and")
	v.want("more lines below")
	v.press("end")
	v.want("path change and", "the same connection ID")
	v.lacks("more lines below")
	v.press("home")
	v.want("confidence")
}

// TestMove checks that a change of path is shown: in a line, and as a highlighted row.
func TestMove(t *testing.T) {
	v := newView(t)
	v.show(three())
	all := three()
	change := monitor.PathChange{
		Kind: monitor.Migration, Time: v.at, From: all[0].Paths[0].Client,
		To: netip.MustParseAddrPort("192.0.2.77:7777"), Confidence: monitor.High,
	}
	all[0].Paths[0].Client, all[0].PathChanges = change.To, []monitor.PathChange{change}
	v.moves = append(v.moves, newMove(&monitor.Event{Kind: monitor.EventPathChanged, Connection: all[0], Change: &change}))
	v.show(all)
	v.want("1 path change ", "● cherry.test", "192.0.2.77:7777",
		"12:00:01 migration 192.0.2.1:50000 → 192.0.2.77:7777 (high) cherry.test")
	if line := v.styled("● cherry"); !strings.Contains(line, "\x1b[1;33m") {
		t.Errorf("the row has the style %q", line)
	}
	v.press("/", "moved")
	v.want("filter (1 of 3): moved", "cherry")
	v.press("esc")
	v.at = v.at.Add(highlight)
	v.show(all)
	v.want("  cherry.test", "migration 192.0.2.1:50000")
}

// TestEnded checks that a connection that has ended is shown so, and disappears.
func TestEnded(t *testing.T) {
	v := newView(t)
	v.show(three())
	v.press("down", "enter")
	v.show(three())
	v.want("from the client", "10 packets")
	all := three()
	all[0].FromClient.Packets++
	v.show(all)
	v.want("from the client", "11 packets")
	all[0].FromClient.Packets++
	all[0].State, all[0].Ended = monitor.StateEnded, &monitor.Ending{Time: start, Cause: monitor.CauseIdle}
	v.show(all[1:], monitor.Event{Kind: monitor.EventClosed, Connection: all[0], Reason: monitor.Idle})
	v.want("ended: idle, at 12:00:00.000; no longer kept", "server name", "cherry.test", "from the client", "12 packets")
	v.press("esc")
	v.want("2 connections, 1 ended", "× cherry.test", "-", "-")
	v.press("/", "ended", "enter")
	v.want("filter (1 of 3): ended", "× cherry.test")
	v.press("esc", "home")
	if line := v.styled("× cherry"); !strings.Contains(line, "\x1b[2m") {
		t.Errorf("the row has the style %q", line)
	}
	v.press("/", "cherry", "enter", "enter")
	v.show(all[1:])
	v.at = v.at.Add(endedFor)
	v.show(all[1:])
	v.want("ended: idle", "server name", "cherry.test")
	v.press("esc", "esc")
	v.lacks("cherry")
	v.want("2 connections │")
}

// TestSilent checks that the row of a silent connection is faint, also if the monitor has not
// noticed the silence because there are no packets at all.
func TestSilent(t *testing.T) {
	v := newView(t)
	all := three()
	all[0].State = monitor.StateSilent
	v.show(all)
	if line := v.styled("cherry"); !strings.Contains(line, "\x1b[2m") {
		t.Errorf("the row has the style %q", line)
	}
	v.press("/", "silent")
	v.want("filter (1 of 3): silent", "cherry")
	v.at = start.Add(silentAfter)
	v.show(all)
	v.want("filter (3 of 3): silent", "cherry")
}

// TestPause checks that nothing moves while the view is paused, and that details can be opened.
func TestPause(t *testing.T) {
	v := newView(t)
	v.show(three()[:1])
	v.press("p")
	v.show(three())
	v.want("PAUSED 12:00:00", "1 connection ", "cherry")
	v.lacks("apple")
	v.press("enter")
	v.show(three())
	v.want("PAUSED", "Connection 1  cherry.test", "server name")
	v.press("esc", " ")
	v.want("3 connections", "apple")
	v.lacks("PAUSED")
}

// TestHelp checks that the help is shown until the next key.
func TestHelp(t *testing.T) {
	v := newView(t)
	v.press("?")
	v.want("Keys of the list", "Any key closes this page.")
	for _, line := range strings.Split(helpText, "\n") {
		if ansi.StringWidth(line) > fullWidth {
			t.Errorf("a line is wider than the screen: %s", line)
		}
	}
	if n := strings.Count(helpText, "\n") + 1; n > fullHeight {
		t.Errorf("the help has %d lines", n)
	}
	v.press("x")
	v.want("sorted by")
}

// TestQuit checks the keys that end the view, and what the source does to it.
func TestQuit(t *testing.T) {
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"/", "ctrl+c"}, {"enter", "q"}, {"?", "q"}} {
		v := newView(t)
		v.show(three())
		if v.press(keys...); !v.quitting {
			t.Errorf("%q does not quit", keys)
		}
	}
	v := newView(t)
	if v.send(sourceEnded{}); v.quitting {
		t.Error("the end of the source ends the view")
	}
	v.want("THE SOURCE HAS ENDED")
	if v.send(sourceEnded{errors.New("the interface is gone")}); !v.quitting {
		t.Error("an error of the source does not end the view")
	}
}

// TestHostile checks that a connection cannot write to the terminal, whatever it is called.
func TestHostile(t *testing.T) {
	for _, name := range []string{
		"\x1b[2J\x1b]0;title\x07", "a\nb\r\tc\x00\x7f", "\u202egnp.exe\u2066\u200f", "\u0085\u009b31m", "日本語.example", "👩‍👩‍👧‍👦e\u0301\u0301\u0301", "\xff\xfe",
		strings.Repeat("\x1b", 5000), strings.Repeat("a", 16000),
	} {
		c := full()
		c.ServerName, c.UserAgent, c.JA4, c.Evidence, c.Cipher, c.Direction = name, name, name, name, name, name
		c.ALPN, c.ClientIDs, c.OriginalIDs, c.PostQuantumGroups = []string{name, name}, []string{name}, []string{name}, []string{name}
		c.PathChanges[0].Evidence, c.UID, c.CommunityID, c.History = name, name, name, name
		c.Ended.By, c.Ended.Error, c.Ended.Phrase = name, name, name
		v := newView(t)
		v.moves = []move{newMove(&monitor.Event{Connection: c, Change: &c.PathChanges[0]})}
		v.size(120, 100)
		v.show([]monitor.Connection{c})
		harmless(v)
		v.press("enter")
		v.show([]monitor.Connection{c})
		harmless(v)
		v.press("esc", "/")
		v.send(tea.PasteMsg{Content: name[:min(len(name), 50)]})
		harmless(v)
	}
}

// harmless checks that the screen has only the characters that the view itself uses, and
// only styles as escape sequences.
func harmless(v *view) {
	v.Helper()
	content := v.View().Content
	for _, c := range ansi.Strip(content) {
		if c != '\n' && (c > unicode.MaxASCII || !unicode.IsPrint(c)) && !strings.ContainsRune("│→▲▼●×…▅µ↑↓←⏎", c) {
			v.Fatalf("the screen has %q:\n%q", c, content)
		}
	}
	for part := range strings.SplitSeq(content, "\x1b") {
		if i := strings.IndexAny(part, "m"); part != "" && part[0] == '[' && strings.Trim(part[1:i], "0123456789;") != "" {
			v.Fatalf("the screen has the escape sequence %q", part)
		}
	}
	for line := range strings.SplitSeq(content, "\n") {
		if got := ansi.StringWidth(line); got > v.width {
			v.Fatalf("a line has %d cells, the screen %d: %q", got, v.width, line)
		}
	}
}

// TestSizes checks that nothing is wider or higher than the screen, for screens of all sizes.
func TestSizes(t *testing.T) {
	v := newView(t)
	c := full()
	v.moves = []move{newMove(&monitor.Event{Connection: c, Change: &c.PathChanges[0]})}
	for _, keys := range [][]string{{}, {"enter"}, {"?"}, {"x", "esc", "/", "e"}} {
		v.press(keys...)
		v.show(append(three()[1:], c))
		for width := 0; width < 150; width += 1 + width/10 {
			for _, height := range []int{0, 1, 2, 3, 5, 6, 11, 12, 23, 24, 60} {
				v.size(width, height)
				content := v.View().Content
				if lines := strings.Count(content, "\n") + 1; lines > max(height, 1) {
					t.Fatalf("%d x %d: got %d lines", width, height, lines)
				}
				for line := range strings.SplitSeq(content, "\n") {
					if got := ansi.StringWidth(line); got > width {
						t.Fatalf("%d x %d: a line has %d cells: %q", width, height, got, line)
					}
				}
			}
		}
	}
}

// TestResize checks that columns come and go with the width, and rows with the height.
func TestResize(t *testing.T) {
	v := newView(t)
	v.show(three())
	v.size(200, 24)
	v.want("NAME", "CLIENT", "SERVER", "ALPN", "VERS", "STATE", "RTT", "TREND", "UP/s", "DN/s", "PKTS", "AGE▲")
	v.size(20, 5)
	v.want("NAME", "AGE▲", "banana", "10s")
	v.lacks("CLIENT")
	v.size(80, 3)
	v.want("CLIENT", "banana")
}
