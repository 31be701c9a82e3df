package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/monitor"
)

// testTimes are those of a page whose connections stay after their end.
var testTimes = pageTimes{interval: time.Second, keepEnded: time.Minute}

// shown serves the page of the sample after its run, and returns the URL.
func shown(t *testing.T) string {
	t.Helper()
	m := sample(t)
	p := newPage(m, testTimes)
	events, done := m.Events(t.Context()), make(chan struct{})
	go func() {
		defer close(done)
		p.history.follow(events)
	}()
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	server := httptest.NewServer(p.handler())
	t.Cleanup(server.Close)
	return server.URL
}

// answered is the part of an answer that the tests look at.
type answered struct {
	Rows []struct {
		Number  uint64  `json:"number"`
		Name    string  `json:"name"`
		Client  string  `json:"client"`
		State   string  `json:"state"`
		Version string  `json:"version"`
		RTT     float64 `json:"rtt_ms"`
		RTTBy   string  `json:"rtt_by"`
		Moves   int     `json:"moves"`
	} `json:"rows"`
	Found       int    `json:"found"`
	Total       int    `json:"total"`
	Running     bool   `json:"running"`
	PathChanges uint64 `json:"path_changes"`
	Moves       []struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"moves"`
	Detail *struct {
		Name       string      `json:"name"`
		ServerName string      `json:"sni"`
		Version    string      `json:"version_name"`
		RTTs       []roundTrip `json:"rtts"`
		ClientIDs  []string    `json:"client_ids"`
	} `json:"detail"`
}

// ask returns the answer to a query.
func ask(t *testing.T, base string, query url.Values) (out answered) {
	t.Helper()
	r, err := http.Get(base + "/data.json?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAnswer checks what the page gets about the sample.
func TestAnswer(t *testing.T) {
	base := shown(t)
	got := ask(t, base, nil)
	if got.Total != 2 || got.Found != 2 || len(got.Rows) != 2 || got.Running || got.PathChanges != 1 {
		t.Fatalf("got %+v, want two connections, and one change of path", got)
	}
	if len(got.Moves) != 1 || got.Moves[0].Name != "moving.example" || got.Moves[0].Kind != "rebinding" || got.Detail != nil {
		t.Errorf("got moves %+v, detail %+v", got.Moves, got.Detail)
	}
	moving := got.Rows[0]
	if moving.Name != "moving.example" {
		moving = got.Rows[1]
	}
	if moving.Version != "v1" || moving.RTT != 20 || moving.RTTBy != "handshake" || moving.Moves != 1 || moving.State != "open" || moving.Client != "192.0.2.1:50123" {
		t.Errorf("got %+v", moving)
	}
	d := ask(t, base, url.Values{"detail": {fmt.Sprint(moving.Number)}}).Detail
	if d == nil || d.ServerName != "moving.example" || d.Version != "v1" || len(d.RTTs) != 1 || d.RTTs[0].By != "handshake" || len(d.ClientIDs) == 0 {
		t.Errorf("got detail %+v", d)
	}
	for _, number := range []string{"0", "99", "-1", "x"} {
		if d := ask(t, base, url.Values{"detail": {number}}).Detail; d != nil {
			t.Errorf("connection %s: got %+v, want none", number, d)
		}
	}
}

// TestSearch checks that the rows are those that have all words of the search, in lower or
// upper case.
func TestSearch(t *testing.T) {
	base := shown(t)
	id := ask(t, base, url.Values{"q": {"moving"}, "detail": {"2"}}).Detail.ClientIDs[0]
	for search, want := range map[string]int{
		"": 2, "MOVING": 1, "rebinding": 1, "v1 198.51.100.2": 2, "v1 moving 50123": 1, "moving markup": 0, "nobody": 0,
		"open": 2, "open moving": 1, "ended": 0, "<b>": 1, id: 1, strings.Repeat("x", 10000): 0,
	} {
		if got := ask(t, base, url.Values{"q": {search}}); got.Found != want || len(got.Rows) != want || got.Total != 2 {
			t.Errorf("%.20q: got %d of %d, want %d of 2", search, got.Found, got.Total, want)
		}
	}
}

// listingOf returns a listing of n connections with different values.
func listingOf(n int) *listing {
	l := &listing{now: time.Now(), clock: time.Now(), keep: time.Minute}
	for i := range n {
		k := uint64((i*7919 + 13) % n)
		c := monitor.Connection{
			Number: uint64(i + 1), Version: monitor.Version(k % 3), First: l.clock, Last: l.clock.Add(-time.Duration(k%2) * time.Hour),
			FromClient: monitor.Traffic{Bytes: k * 100}, FromServer: monitor.Traffic{Packets: k % 5},
			SpinRTT: monitor.Milliseconds(k), PathChangesOmitted: int(k % 4),
			Paths: []monitor.Path{{
				Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(k >> 8), byte(k)}), 1),
				Server: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(k % 7)}), 443), Active: true,
			}},
		}
		c.ServerName = fmt.Sprintf("%d.example", k)
		l.all = append(l.all, &entry{Connection: c})
	}
	return l
}

// TestSort checks that each column sorts the rows, in both orders.
func TestSort(t *testing.T) {
	l := listingOf(100)
	for name, compare := range columns {
		up, _ := l.rows(query{by: name, rows: 100})
		down, _ := l.rows(query{by: name, rows: 100, descending: true})
		for i := range up[1:] {
			if compare(l.all[up[i].Number-1], l.all[up[i+1].Number-1], l.clock) > 0 {
				t.Fatalf("%s: row %d is before row %d", name, up[i].Number, up[i+1].Number)
			}
		}
		slices.Reverse(down)
		if !slices.EqualFunc(up, down, func(a, b row) bool { return a.Number == b.Number }) {
			t.Errorf("%s: the orders are not opposite", name)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/data.json?sort=no+such&order=x&rows=99999&detail=z", nil)
	if q := queryOf(r); q.by != "started" || !q.descending || q.rows != maxRows || q.detail != 0 {
		t.Errorf("got %+v, want the defaults", q)
	}
}

// TestManyRows checks that the rows are limited, and that the others are counted.
func TestManyRows(t *testing.T) {
	rows, found := listingOf(3000).rows(query{by: "rtt", rows: 100, descending: true})
	if len(rows) != 100 || found != 3000 || rows[0].RTT*1e6 != 2999 {
		t.Errorf("got %d of %d rows, the first with %v ms", len(rows), found, rows[0].RTT)
	}
}

// TestNames checks that long names are cut.
func TestNames(t *testing.T) {
	c := monitor.Connection{Paths: make([]monitor.Path, 1)}
	c.ServerName, c.ALPN = strings.Repeat("é", 5000), []string{strings.Repeat("a", 5000)}
	l := &listing{all: []*entry{{Connection: c}}}
	rows, _ := l.rows(query{by: "name", rows: 1})
	d := l.detail(0, new(history))
	for _, text := range []string{rows[0].Name, rows[0].ALPN[0], d.Name, d.ServerName, d.ALPN[0]} {
		if len(text) > maxName+len("…") || !strings.HasSuffix(text, "…") {
			t.Errorf("got %d bytes", len(text))
		}
	}
}

// TestStates checks the states of a connection, and how it has ended.
func TestStates(t *testing.T) {
	now := time.Now()
	open := monitor.Connection{State: monitor.StateOpen, Last: now}
	late, closed := open, open
	late.Last = now.Add(-silentAfter)
	closed.State, closed.Ended = monitor.StateEnded, &monitor.Ending{Time: now, By: "server", Error: "0x2 CONNECTION_REFUSED"}
	refused := "closed in the handshake by the server: 0x2 CONNECTION_REFUSED"
	for name, test := range map[string]struct {
		entry
		state monitor.State
		why   string
	}{
		"open":             {entry{Connection: open}, monitor.StateOpen, ""},
		"no packets":       {entry{Connection: late}, monitor.StateSilent, ""},
		"closed":           {entry{Connection: closed}, monitor.StateEnded, refused},
		"closed, removed":  {entry{Connection: closed, ended: now, reason: monitor.Idle}, monitor.StateEnded, refused},
		"idle":             {entry{Connection: open, ended: now, reason: monitor.Idle}, monitor.StateEnded, "idle"},
		"idle for a while": {entry{Connection: late, ended: now, reason: monitor.Idle}, monitor.StateEnded, "idle"},
		"evicted":          {entry{Connection: open, ended: now, reason: monitor.Evicted}, monitor.StateEnded, "removed to make room"},
	} {
		if state, why := test.entry.state(now), test.why; state != test.state || test.entry.why() != why {
			t.Errorf("%s: got %v, %q, want %v, %q", name, state, test.entry.why(), test.state, why)
		}
	}
}

// TestEnded checks that connections that have ended are listed for a while, and do not count.
func TestEnded(t *testing.T) {
	m := sample(t)
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, now := newPage(m, usualTimes), time.Now()
	c := monitor.Connection{Number: 1, Paths: make([]monitor.Path, 1)} // also among those that are kept
	p.history.add(&monitor.Event{Kind: monitor.EventRTT, Connection: c, RTT: 5}, now)
	p.history.add(&monitor.Event{Kind: monitor.EventClosed, Connection: c, Reason: monitor.Idle}, now)
	q := query{by: "started", rows: 10, detail: 1}
	a := p.answer(q, now.Add(4*time.Second))
	if a.Total != 1 || a.Found != 2 || a.Rows[0].State != "ended" || a.Rows[0].Why != "idle" || a.Rows[0].Left != 6000 {
		t.Errorf("got %d of %d, %+v", a.Found, a.Total, a.Rows)
	}
	if a.Detail == nil || a.Detail.State != "ended" || a.Detail.Reason != "idle" || len(a.Detail.RTTs) != 1 {
		t.Errorf("got detail %+v", a.Detail)
	}
	if a := p.answer(q, now.Add(11*time.Second)); len(p.history.ended) != 0 || a.Rows[0].State == "ended" {
		t.Errorf("later: got %+v", a.Rows)
	}
	p.history.add(&monitor.Event{Kind: monitor.EventClosed, Connection: c, Reason: monitor.Idle}, now)
	p.history.over = true // the end of a file, of which all is to be seen
	if a := p.answer(q, now.Add(time.Hour)); a.Rows[0].State != "ended" || a.Rows[0].Left != 0 {
		t.Errorf("after the end of a file: got %+v", a.Rows)
	}
}

// TestClosedInHandshake checks that a connection that was closed is listed for a while, also if the monitor
// still keeps it, and for as long as it is kept after the end of the capture.
func TestClosedInHandshake(t *testing.T) {
	p, now := newPage(sample(t), usualTimes), time.Now()
	c := &p.catalog
	c.newest, c.newestAt, c.taken = now, now, now.Add(time.Hour) // so that nothing is copied
	c.all = []*entry{{Connection: monitor.Connection{State: monitor.StateEnded, Ended: &monitor.Ending{Time: now}, Paths: make([]monitor.Path, 1)}}}
	for after, want := range map[time.Duration]int{0: 1, 9 * time.Second: 1, 11 * time.Second: 0} {
		if l := c.look(now.Add(after), &p.history); len(l.all) != want || l.total != 1 {
			t.Errorf("%v later: got %d rows of %d, want %d of 1", after, len(l.all), l.total, want)
		}
	}
	p.history.over = true
	if l := c.look(now.Add(time.Hour), &p.history); len(l.all) != 1 {
		t.Error("it is not shown after the end of the capture")
	}
}

// TestHistoryIsBounded checks the limits of what is remembered.
func TestHistoryIsBounded(t *testing.T) {
	h := &newPage(sample(t), testTimes).history
	for i := range 3 * maxRemembered {
		c := monitor.Connection{Number: uint64(i), Paths: make([]monitor.Path, 1)}
		h.add(&monitor.Event{Kind: monitor.EventRTT, Connection: c, RTT: 5}, time.Now())
		h.add(&monitor.Event{Kind: monitor.EventRTT, RTT: 5}, time.Now())
		h.add(&monitor.Event{Kind: monitor.EventPathChanged, Connection: c, Change: new(monitor.PathChange)}, time.Now())
	}
	if len(h.rtts) != maxRemembered || len(h.rtts[0]) != maxRoundTrips || len(h.moves) != maxMoves || h.moved != 3*maxRemembered {
		t.Errorf("got round trips of %d, %d of the first, %d of %d moves", len(h.rtts), len(h.rtts[0]), len(h.moves), h.moved)
	}
	for i := range 3 * maxRemembered {
		h.add(&monitor.Event{Kind: monitor.EventClosed, Connection: monitor.Connection{Number: uint64(i)}}, time.Now())
	}
	if len(h.rtts) != 0 || len(h.ended) != maxEnded || h.ended[maxEnded-1].Number != 3*maxRemembered-1 {
		t.Errorf("after their ends: round trips of %d, %d ended", len(h.rtts), len(h.ended))
	}
}

// TestRates checks that both rates count datagrams, of which a packet may have several.
func TestRates(t *testing.T) {
	var r rates
	for range 2 * maxRates {
		r.add(&monitor.Stats{Packets: 1, Datagrams: 10, Tracked: 5}, &monitor.Stats{Packets: 3, Datagrams: 40, Tracked: 28, Adopted: 3})
	}
	if got := r.latest(); len(got) != maxRates || got[0] != (rate{Datagrams: 30, QUIC: 20}) {
		t.Errorf("got %d rates, %+v", len(got), got[0])
	}
}

// TestCatalogCost checks that the connections are not copied again before that costs only a
// part of the time.
func TestCatalogCost(t *testing.T) {
	p, now := newPage(sample(t), testTimes), time.Now()
	c := &p.catalog
	for _, test := range []struct {
		cost, after time.Duration
		anew        bool
	}{{0, time.Second / 2, true}, {0, time.Second / 4, false}, {time.Second, 9 * time.Second, false}, {time.Second, 10 * time.Second, true}} {
		c.taken, c.cost = now, test.cost
		if c.look(now.Add(test.after), &p.history); c.taken.After(now) != test.anew {
			t.Errorf("%v after a copy that took %v: anew %v, want %v", test.after, test.cost, !test.anew, test.anew)
		}
	}
}

// TestRebound checks that requests to loopback that name another host are refused (DNS
// rebinding).
func TestRebound(t *testing.T) {
	base := shown(t)
	port := base[strings.LastIndex(base, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "localhost": 200, "[::1]" + port: 200, "[::1]": 200,
		"rebound.example" + port: 403, "rebound.example": 403, "192.0.2.1" + port: 403,
	} {
		r, err := http.NewRequest(http.MethodGet, base+"/data.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("as %s: got %d, want %d", host, answer.StatusCode, want)
		}
	}
}

// TestLocal checks that an address without a host is one that only this host reaches.
func TestLocal(t *testing.T) {
	for address, want := range map[string]string{
		":8080": "127.0.0.1:8080", "0.0.0.0:8080": "0.0.0.0:8080", "[::1]:80": "[::1]:80", "localhost:1": "localhost:1", "x": "x",
	} {
		if got := local(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	if !loopback(&net.TCPAddr{IP: net.IPv6loopback}) || loopback(&net.TCPAddr{IP: net.IPv4zero}) {
		t.Error("loopback addresses are not told from others")
	}
}

// TestFiles checks that the page's files have their types and a policy that allows nothing
// from elsewhere, and that no file needs more.
func TestFiles(t *testing.T) {
	base := shown(t)
	names, err := fs.Glob(assets, "page/*")
	if err != nil || len(names) < 10 {
		t.Fatalf("got %d files, %v", len(names), err)
	}
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|style="|onclick|//[a-z]+\.[a-z]`)
	for _, name := range append(names, "page/") {
		name = strings.TrimPrefix(name, "page")
		r, err := http.Get(base + name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v", name, r.Status, err)
		}
		want := types[cmp.Or(path.Ext(name), ".html")]
		if got := r.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: got type %q, want %q", name, got, want)
		}
		csp := r.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: got policy %q", name, csp)
		}
		code := strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", "")
		if found := markup.FindString(code); found != "" {
			t.Errorf("%s has %q", name, found)
		}
	}
}

// TestBusy checks that a client whose turn does not come is told to come again.
func TestBusy(t *testing.T) {
	p := newPage(sample(t), testTimes)
	<-p.turn
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	p.handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/data.json", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}

// TestServeEnds checks that slow clients delay no others, and that nothing runs any more
// after wait.
func TestServeEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	wait := serveOn(ctx, sample(t), listener)
	for range 50 { // they send requests and read no answers
		slow, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		if _, err := io.WriteString(slow, strings.Repeat("GET /data.json?rows=500 HTTP/1.1\r\nHost: localhost\r\n\r\n", 20)); err != nil {
			t.Fatal(err)
		}
	}
	ask(t, "http://"+address, nil)
	cancel()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the page is still served")
	}
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := goroutines()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines are left:\n%s", strings.Join(left, "\n\n"))
		}
	}
}

// goroutines returns those that run the page's code.
func goroutines() (out []string) {
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "examples/monitor/page") && !strings.Contains(stack, "testing.tRunner") {
			out = append(out, stack)
		}
	}
	return out
}

// BenchmarkAnswer measures a search and a sort of as many connections as a monitor keeps.
func BenchmarkAnswer(b *testing.B) {
	l := listingOf(monitor.DefaultMaxConnections)
	q := query{by: "name", rows: maxRows, words: []string{"99", "example"}}
	for b.Loop() {
		l.rows(q)
	}
}

// TestContrast checks that each colour of texts has a contrast of at least 4.5 to 1 on the
// backgrounds that texts have (WCAG 2.2 §1.4.3), in the light and in the dark scheme.
func TestContrast(t *testing.T) {
	css, err := fs.ReadFile(assets, "page/base.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(string(css), -1)
	if len(schemes) != 2 {
		t.Fatalf("got %d schemes, want 2", len(schemes))
	}
	for i, scheme := range schemes {
		colours := map[string]float64{} // luminances
		for _, c := range regexp.MustCompile(`--(\w+): #(\w+)`).FindAllStringSubmatch(scheme[1], -1) {
			colours[c[1]] = luminance(t, c[2])
		}
		for _, pair := range []string{
			"ink back", "ink panel", "ink hover", "ink soft", "dim back", "dim panel", "dim hover",
			"blue panel", "blue soft", "red panel", "amber panel", "violet panel", "teal panel",
		} {
			text, back, _ := strings.Cut(pair, " ")
			a, b := colours[text], colours[back]
			if contrast := (max(a, b) + .05) / (min(a, b) + .05); contrast < 4.5 {
				t.Errorf("scheme %d: %s on %s has a contrast of %.1f", i, text, back, contrast)
			}
		}
	}
}

// luminance returns the relative luminance of a colour in hex (WCAG 2.2).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	var c [3]int
	if _, err := fmt.Sscanf(hex, "%02x%02x%02x", &c[0], &c[1], &c[2]); err != nil {
		t.Fatal(err)
	}
	linear := func(v int) float64 {
		if s := float64(v) / 255; s > 0.04045 {
			return math.Pow((s+0.055)/1.055, 2.4)
		}
		return float64(v) / 255 / 12.92
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}
