package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/monitor"
)

// sample returns a monitor of the capture in testdata. It has two connections: one that
// moves to another port, and one whose server name is HTML markup.
func sample(t *testing.T) *monitor.Monitor {
	t.Helper()
	source, err := monitor.OpenFile("testdata/sample.pcap")
	if err != nil {
		t.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// shown serves the page of that monitor after its run, and returns the URL.
func shown(t *testing.T) string {
	t.Helper()
	m := sample(t)
	p := &page{monitor: m, rtts: make(map[uint64][]float64)}
	events, done := m.Events(t.Context()), make(chan struct{})
	go func() {
		defer close(done)
		p.follow(events)
	}()
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	server := httptest.NewServer(p.handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestData(t *testing.T) {
	r, err := http.Get(shown(t) + "/data.json")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var got struct {
		Connections []struct {
			SNI     string    `json:"sni"`
			Name    string    `json:"version_name"`
			RTTs    []float64 `json:"rtts"`
			Changes []struct {
				Kind string `json:"kind"`
			} `json:"path_changes"`
		} `json:"connections"`
		Found int `json:"found"`
		Total int `json:"total"`
		Moves int `json:"moves"`
	}
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Total != 2 || got.Found != 2 || len(got.Connections) != 2 || got.Moves != 1 {
		t.Fatalf("got %d connections and %d moves, want 2 and 1", got.Total, got.Moves)
	}
	moved := 0
	for _, c := range got.Connections {
		if c.Name != "v1" || len(c.RTTs) == 0 {
			t.Errorf("got %+v", c)
		}
		for _, change := range c.Changes {
			if change.Kind == "rebinding" {
				moved++
			}
		}
	}
	if moved != 1 {
		t.Errorf("got %d rebindings, want 1", moved)
	}
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") {
		t.Errorf("got policy %q", csp)
	}
}

// TestFilter checks that data.json has the connections with all words of the query,
// in lower or upper case.
func TestFilter(t *testing.T) {
	url := shown(t)
	for query, want := range map[string]int{
		"": 2, "MOVING": 1, "rebinding": 1, "v1+198.51.100.2": 2, "v1+moving+50123": 1, "moving+markup": 0, "nobody": 0,
	} {
		r, err := http.Get(url + "/data.json?q=" + query)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Connections []any `json:"connections"`
			Found       int   `json:"found"`
			Total       int   `json:"total"`
		}
		err = json.NewDecoder(r.Body).Decode(&got)
		r.Body.Close()
		if err != nil || got.Found != want || len(got.Connections) != want || got.Total != 2 {
			t.Errorf("%q: got %d of %d, %v, want %d of 2", query, got.Found, got.Total, err, want)
		}
	}
}

// TestRebound checks that requests to loopback that name another host are refused (DNS
// rebinding).
func TestRebound(t *testing.T) {
	url := shown(t)
	port := url[strings.LastIndex(url, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "localhost": 200, "[::1]" + port: 200, "[::1]": 200,
		"rebound.example" + port: 403, "rebound.example": 403, "192.0.2.1" + port: 403,
	} {
		r, err := http.NewRequest(http.MethodGet, url+"/data.json", nil)
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

// TestPage checks that a browser shows the connections, and shows markup in a name as
// text.
func TestPage(t *testing.T) {
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		nettest.Missing(t, "showing the page needs Chromium, which is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dom, err := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=5000", "--dump-dom", shown(t)).Output()
	if err != nil {
		t.Fatalf("%s: %v", chromium, err)
	}
	for _, want := range []string{
		`data-ready="yes"`, "moving.example", "rebinding", "post-quantum", `class="spark`, `class="timeline"`,
		"&lt;b&gt;markup&lt;/b&gt;.example",
	} {
		if !bytes.Contains(dom, []byte(want)) {
			t.Errorf("the page has no %s", want)
		}
	}
	if bytes.Contains(dom, []byte("<b>markup</b>")) {
		t.Error("the page has a name as markup, want text")
	}
}

// TestTable checks that the table has a line for each connection and for the move.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, "", "capture", []string{"testdata/sample.pcap"}, "table", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CLIENT", "moving.example", "\n  rebinding 192.0.2.1:50000 → 192.0.2.1:50123 (high: ", "<b>markup</b>.example", "2 connections; "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}

// TestJSON checks that there is one line for each connection, with the documented
// fields.
func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, "", "capture", []string{"testdata/sample.pcap"}, "json", "", nil); err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for line := range strings.Lines(out.String()) {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		types[got["type"].(string)]++
		if got["type"] != "connection" {
			continue
		}
		for _, field := range []string{"confidence", "version", "odcid", "sni", "alpn", "ja4", "paths", "handshake", "first", "last"} {
			if got[field] == nil {
				t.Errorf("a connection has no %q: %s", field, line)
			}
		}
	}
	if types["connection"] != 2 || types["event"] < 5 || types["stats"] != 1 {
		t.Errorf("got lines %v", types)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"a", "b"}, {"testdata/none.pcap"}, {"main.go"}} {
		if err := run(t.Context(), new(bytes.Buffer), "", "capture", args, "table", "", nil); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	if err := run(t.Context(), new(bytes.Buffer), "eth0", "capture", []string{"file"}, "table", "", nil); err == nil {
		t.Error("interfaces and a file: no error")
	}
}

// full is a writer on a full disk.
type full struct{ writes int }

func (f *full) Write([]byte) (int, error) {
	f.writes++
	return 0, syscall.ENOSPC
}

// TestFullDisk checks that a failed write is reported once and ends the output.
func TestFullDisk(t *testing.T) {
	for _, format := range []string{"table", "json", "zeek", "zeek-json", "eve"} {
		var disk full
		err := run(t.Context(), &disk, "", "capture", []string{"testdata/sample.pcap"}, format, "", nil)
		if !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "\n") > 0 || disk.writes != 1 {
			t.Errorf("%s: got %q after %d writes", format, err, disk.writes)
		}
	}
}

// TestClosed checks that the table has at most maxClosed closed connections, and the
// number of the others.
func TestClosed(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, nil)
	m := sample(t)
	for c := range uint64(maxClosed + 2) {
		r.event(&monitor.Event{Kind: monitor.EventClosed, Connection: monitor.Connection{Number: c, Paths: make([]monitor.Path, 1)}})
	}
	if err := r.finish(m); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != maxClosed+3 || !strings.HasPrefix(out.String(), "2 closed connections are not in this table\n") {
		t.Errorf("got %d lines: %.100q", got, out.String())
	}
}

// TestPrintable checks that names with control characters are quoted and long ones cut.
func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"name.example":              "name.example",
		"a\x1b[2Jb\tc\n":            `"a\x1b[2Jb\tc\n"`,
		"a\u202eb":                  `"a\u202eb"`,
		"\xff":                      `"\xff"`,
		strings.Repeat("é", 10000):  strings.Repeat("é", maxCell/2) + "…",
		strings.Repeat("a\x00", 50): strconv.Quote(strings.Repeat("a\x00", maxCell/2) + "…"),
	} {
		if got := printable(name); got != want {
			t.Errorf("%.20q: got %s, want %s", name, got, want)
		}
	}
}
