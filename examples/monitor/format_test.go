package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/quicway/quicway/monitor"
)

// TestFormats checks that each format has its lines, of the two connections in the capture.
func TestFormats(t *testing.T) {
	for format, want := range map[string]struct {
		line  string
		lines int
	}{
		"zeek":      {"\tmoving.example\t", 2 + 9},
		"zeek-json": {`"server_name":"moving.example"`, 2},
		"eve":       {`"event_type":"quic"`, 2},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), &out, "", "capture", []string{"testdata/sample.pcap"}, format, "", nil); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.Contains(got, want.line) || strings.Count(got, "\n") != want.lines {
			t.Errorf("%s: got %d lines, want %d, one with %s:\n%s", format, strings.Count(got, "\n"), want.lines, want.line, got)
		}
	}
	if err := run(t.Context(), new(bytes.Buffer), "", "capture", []string{"testdata/sample.pcap"}, "xml", "", nil); err == nil {
		t.Error("no error for an unknown format")
	}
}

// TestFiltered checks that only what the filter selects is printed.
func TestFiltered(t *testing.T) {
	filter, err := monitor.ParseFilter("name moving.*")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), &out, "", "capture", []string{"testdata/sample.pcap"}, "eve", "", &monitor.Config{Filter: filter}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "moving.example") {
		t.Errorf("got %s", got)
	}
}
