package quota

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

const listText = `# who may not
deny  192.0.2.0/24
deny	198.51.100.7 ttl=24h end  what people may read

allow 2001:db8::/48 the office   # as they say
deny ::ffff:203.0.113.0/120 mapped
` + "deny 203.0.113.9 as Windows writes\r\n\r\n"

func TestParseList(t *testing.T) {
	now := time.Unix(1000, 0)
	got, err := ParseList(strings.NewReader(listText), now)
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{List: DenyList, Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		{List: DenyList, Prefix: netip.MustParsePrefix("198.51.100.7/32"), Expires: now.Add(24 * time.Hour), End: true, Reason: "what people may read"},
		{List: AllowList, Prefix: netip.MustParsePrefix("2001:db8::/48"), Reason: "the office   # as they say"},
		{List: DenyList, Prefix: netip.MustParsePrefix("203.0.113.0/24"), Reason: "mapped"},
		{List: DenyList, Prefix: netip.MustParsePrefix("203.0.113.9/32"), Reason: "as Windows writes"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseListErrors(t *testing.T) {
	for text, want := range map[string]string{
		"drop 192.0.2.0/24":      `line 1: want "deny" or "allow", got "drop"`,
		"\n#\ndeny":              "line 3: invalid prefix: none given",
		"deny 192.0.2.1/24":      "line 1: invalid prefix: 192.0.2.1/24 has bits beyond its length: want 192.0.2.0/24",
		"deny fe80::1%eth0":      `line 1: invalid prefix: "fe80::1%eth0"`,
		"deny 192.0.2.0/33":      `line 1: invalid prefix: "192.0.2.0/33"`,
		"deny ::ffff:0:0/80":     "line 1: invalid prefix: ::ffff:0.0.0.0/80 covers both IPv4 and IPv6 addresses",
		"deny 192.0.2.1 ttl=x":   `line 1: ttl "x" is not a duration above 0, such as 24h`,
		"deny 192.0.2.1 ttl=-1s": `line 1: ttl "-1s" is not a duration above 0, such as 24h`,
		"deny 192.0.2.1\nallow 192.0.2.1\ndeny 192.0.2.1/32": "line 3: invalid prefix: deny 192.0.2.1/32 is on line 1 already",
		"#\n" + strings.Repeat("x", maxLine+1):               "line 2: longer than 4096 bytes",
	} {
		entries, err := ParseList(strings.NewReader(text), time.Time{})
		var line *LineError
		if entries != nil || !errors.As(err, &line) || err.Error() != want {
			t.Errorf("%.40q: got %v, %v, want %q", text, entries, err, want)
		}
	}
}

// TestListErrors checks that invalid entries are not added.
func TestListErrors(t *testing.T) {
	c := mustNew(t, &Config{MaxEntries: 1})
	p := netip.MustParsePrefix("192.0.2.0/24")
	if err := c.Deny(p, -time.Second, ""); err == nil || !strings.Contains(err.Error(), "deny 192.0.2.0/24: ttl is -1s") {
		t.Errorf("got %v, want an error about the ttl", err)
	}
	if err := c.Allow(netip.Prefix{}, 0, ""); !errors.Is(err, ErrPrefix) {
		t.Errorf("got %v, want ErrPrefix", err)
	}
	if err := c.Add(Entry{List: numLists, Prefix: p}); !errors.Is(err, ErrPrefix) || !strings.Contains(err.Error(), "list 2") {
		t.Errorf("got %v, want an error about the list", err)
	}
	wantEntries(t, c)
	if err := c.Deny(p, 0, ""); err != nil {
		t.Error(err)
	}
	if err := c.Deny(netip.MustParsePrefix("198.51.100.0/24"), 0, ""); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if c.Remove(AllowList, p) || c.Remove(numLists, p) || c.Remove(DenyList, netip.Prefix{}) {
		t.Error("removed an entry that is not there")
	}
	wantEntries(t, c, "deny 192.0.2.0/24")
	if !c.Remove(DenyList, netip.MustParsePrefix("::ffff:192.0.2.9/120")) {
		t.Error("not removed")
	}
	wantEntries(t, c)
}

// FuzzParseList checks that entries that were read can be written and read again.
func FuzzParseList(f *testing.F) {
	f.Add(listText)
	f.Add("allow 0.0.0.0/0 ttl=1s\r\ndeny ::/0 end end")
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Unix(1000, 0)
		entries, err := ParseList(strings.NewReader(text), now)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, e := range entries {
			fmt.Fprintf(&again, "%v %v", e.List, e.Prefix)
			if !e.Expires.IsZero() {
				fmt.Fprintf(&again, " ttl=%v", e.Expires.Sub(now))
			}
			if e.End {
				again.WriteString(" end")
			}
			fmt.Fprintf(&again, " %s\n", e.Reason)
		}
		got, err := ParseList(strings.NewReader(again.String()), now)
		if err != nil && strings.Contains(err.Error(), "longer than") {
			return
		}
		if err != nil || !slices.Equal(got, entries) {
			t.Fatalf("%q was read as %+v, and then as %+v, %v", text, entries, got, err)
		}
	})
}

// entries returns the entries of a controller, as "list prefix".
func entries(c *Controller) (all []string) {
	for e := range c.Entries() {
		all = append(all, e.List.String()+" "+e.Prefix.String())
	}
	return all
}

func wantEntries(t *testing.T, c *Controller, want ...string) {
	t.Helper()
	if got := entries(c); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoadFile(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxEntries: 3})
	name := filepath.Join(t.TempDir(), "list")
	load := func(text string) error {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return c.LoadFile(name)
	}
	if err := c.Deny(netip.MustParsePrefix("192.0.2.0/24"), time.Hour, "by hand"); err != nil {
		t.Fatal(err)
	}
	if err := load("deny 10.0.0.0/8\nallow 10.1.0.0/16 ttl=1m\ndeny 192.0.2.0/24 by file\n"); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, c, "deny 10.0.0.0/8", "deny 192.0.2.0/24", "allow 10.1.0.0/16")
	for e := range c.Entries() {
		if e.Prefix.String() == "192.0.2.0/24" && e.Reason != "by hand" {
			t.Errorf("the file has replaced an entry that was added at run time: %+v", e)
		}
	}

	var line *LineError
	if err := load("deny 172.16.0.0/12\ndeny nonsense\n"); !errors.As(err, &line) || line.Line != 2 || !strings.Contains(err.Error(), name+": line 2") {
		t.Errorf("got %v, want an error about line 2 of the file", err)
	}
	if err := load("deny 1.0.0.0/8\ndeny 2.0.0.0/8\ndeny 3.0.0.0/8\n"); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if err := load("deny 1.0.0.0/8\n\ndeny 2.0.0.0/8\ndeny 3.0.0.0/8\ndeny 4.0.0.0/8\nnonsense"); !errors.Is(err, ErrFull) || !errors.As(err, &line) || line.Line != 5 {
		t.Errorf("got %v, want ErrFull on line 5, and nothing read after that", err)
	}
	if err := c.LoadFile(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	wantEntries(t, c, "deny 10.0.0.0/8", "deny 192.0.2.0/24", "allow 10.1.0.0/16")

	clock.advance(2 * time.Minute)
	wantEntries(t, c, "deny 10.0.0.0/8", "deny 192.0.2.0/24")
	if err := load("deny 10.0.0.0/8\n"); err != nil {
		t.Fatal(err)
	}
	if err := load(""); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, c, "deny 192.0.2.0/24")
	clock.advance(time.Hour)
	wantEntries(t, c)
}

// TestFullListDropsExpired checks that entries that have expired make room for others.
func TestFullListDropsExpired(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxEntries: 2})
	deny := func(p string, ttl time.Duration) error { return c.Deny(netip.MustParsePrefix(p), ttl, "") }
	if err := errors.Join(deny("10.0.0.0/8", time.Minute), deny("11.0.0.0/8", 0), deny("11.0.0.0/8", time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := deny("12.0.0.0/8", 0); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	clock.advance(time.Minute)
	if err := deny("12.0.0.0/8", 0); err != nil {
		t.Error(err)
	}
	wantEntries(t, c, "deny 11.0.0.0/8", "deny 12.0.0.0/8")
	if !c.Remove(DenyList, netip.MustParsePrefix("11.0.0.0/8")) || c.Remove(DenyList, netip.MustParsePrefix("11.0.0.0/8")) || c.Remove(AllowList, netip.MustParsePrefix("12.0.0.0/8")) {
		t.Error("removed an entry that is not there, or did not remove one that is")
	}
	if err := c.Deny(netip.Prefix{}, 0, ""); !errors.Is(err, ErrPrefix) {
		t.Errorf("got %v, want ErrPrefix", err)
	}
}

// TestDenyEnds checks that a new entry with End ends the connections from its prefix, and
// no others.
func TestDenyEnds(t *testing.T) {
	c := mustNew(t, nil)
	ended := make(chan string, 10)
	for _, from := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.9:1", "198.51.100.1:1"} {
		slot := wantAdmit(t, c, from, true, PassNew)
		slot.OnEnd(func() { slot.Release(); ended <- from })
	}
	p := netip.MustParsePrefix("192.0.2.0/29")
	if err := c.Deny(p, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	wantLive(t, c, 4, 0)
	wantAdmit(t, c, "192.0.2.2:1", true, Denied)
	if err := c.Add(Entry{List: DenyList, Prefix: p, End: true}); err != nil {
		t.Fatal(err)
	}
	got := []string{<-ended, <-ended}
	slices.Sort(got)
	if !slices.Equal(got, []string{"192.0.2.1:1", "192.0.2.1:2"}) {
		t.Errorf("ended %q", got)
	}
	wantLive(t, c, 2, 0)
	if n := c.End(p); n != 0 {
		t.Errorf("ended %d more, want none", n)
	}

	name := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(name, []byte("deny 192.0.2.9\ndeny 198.51.100.0/24 end\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.LoadFile(name); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != "198.51.100.1:1" {
		t.Errorf("the file ended %s", got)
	}
	wantLive(t, c, 1, 0)
}

// TestDenyEndsNoAllowed checks that a new entry with End, and a file that is loaded again, end no
// connection from an address that is allowed.
func TestDenyEndsNoAllowed(t *testing.T) {
	c := mustNew(t, nil)
	if err := c.Allow(netip.MustParsePrefix("192.0.2.9/32"), 0, "the office"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 10)
	for _, from := range []string{"192.0.2.1:1", "192.0.2.9:1"} {
		slot := wantAdmit(t, c, from, true, PassNew)
		slot.OnEnd(func() { slot.Release(); ended <- from })
	}
	if err := c.Add(Entry{List: DenyList, Prefix: netip.MustParsePrefix("192.0.2.0/24"), End: true}); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != "192.0.2.1:1" {
		t.Errorf("ended %s", got)
	}
	name := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(name, []byte("deny 192.0.2.0/25 end\nallow 192.0.2.8/29\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Remove(AllowList, netip.MustParsePrefix("192.0.2.9/32"))
	for range 2 {
		if err := c.LoadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	wantLive(t, c, 1, 0)
	if n := c.End(netip.MustParsePrefix("192.0.2.9/32")); n != 1 {
		t.Errorf("End has ended %d connections, want that of the office", n)
	}
}

// TestDenyEndsUnrememberedSource checks that a connection is ended even if its source is
// not remembered.
func TestDenyEndsUnrememberedSource(t *testing.T) {
	c := mustNew(t, &Config{MaxSources: 1})
	ended := make(chan struct{})
	slot := wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew) // with its site it needs two
	slot.OnEnd(func() { close(ended) })
	if s := c.Stats(); s.Sources != 0 || s.Connections != 1 {
		t.Fatalf("%d sources are remembered, with %d connections", s.Sources, s.Connections)
	}
	if err := c.Add(Entry{List: DenyList, Prefix: netip.MustParsePrefix("2001:db8::/32"), End: true}); err != nil {
		t.Fatal(err)
	}
	<-ended
	slot.Release()
	wantLive(t, c, 0, 0)
}

// TestEntriesCountPackets checks that entries count the packets that match them.
func TestEntriesCountPackets(t *testing.T) {
	c := mustNew(t, nil)
	if err := c.Deny(netip.MustParsePrefix("192.0.2.0/24"), 0, "x"); err != nil {
		t.Fatal(err)
	}
	f := &filter{c: c, idLen: 4}
	for range 3 {
		f.decide(addr("192.0.2.1:1"), []byte{0x40}, c.clock.now())
	}
	for e := range c.Entries() {
		if e.Packets != 3 || e.Reason != "x" {
			t.Errorf("got %+v, want 3 packets", e)
		}
	}
}

// TestDenyWhileServing is the demonstration of BINA: requests are served, stop when their
// address is denied, and are served again when the entry is removed.
func TestDenyWhileServing(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := netip.MustParsePrefix("198.51.100.1/32")
		if err := l.visit("198.51.100.1"); err != nil {
			t.Error(err)
		}
		c := l.client("198.51.100.1")
		conn, err := c.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the server has completed the handshake, too
		if err := l.c.Add(Entry{List: DenyList, Prefix: p, End: true}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-conn.Context().Done():
		case <-time.After(time.Second):
			t.Error("the connection is still open")
		}
		var closed *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &closed) || closed.ErrorCode != excessiveLoad {
			t.Errorf("closed by %v, want %#x", err, excessiveLoad)
		}
		c.close()
		if err := l.visit("198.51.100.1"); err == nil {
			t.Error("served though denied")
		}
		if err := l.visit("198.51.100.2"); err != nil {
			t.Errorf("the neighbour: %v", err)
		}
		l.c.Remove(DenyList, p)
		if err := l.visit("198.51.100.1"); err != nil {
			t.Errorf("after it was removed: %v", err)
		}
	})
}
