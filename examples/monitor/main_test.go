package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
