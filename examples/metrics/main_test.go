package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestOnce checks that the page has the metrics of all parts, and what the traffic has counted.
func TestOnce(t *testing.T) {
	var out bytes.Buffer
	if err := serve(t.Context(), &options{once: true, capture: "../monitor/testdata/sample.pcap"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"quicway_build_info{", "quicway_quota_admitted_total ", "quicway_monitor_opened_total 2", "quicway_sni_relayed_total 1",
		`quicway_p2p_dials_total{outcome="connected",peer="alice"} 1`, `quicway_p2p_offers_total{outcome="connected",peer="bob"} 1`,
	} {
		if !strings.Contains(out.String(), "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestServe checks that the page is served until the context is done.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, &options{listen: "127.0.0.1:0", every: time.Hour}, w) }()
	url, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(strings.TrimSpace(url))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "\nquicway_relay_sessions_limit 65536\n") {
		t.Errorf("%v: %.200s", err, text)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestErrors checks errors of what the options name.
func TestErrors(t *testing.T) {
	for want, o := range map[string]*options{
		"no such file": {once: true, capture: "nothing.pcap"},
		"address":      {listen: "nowhere"},
	} {
		if err := serve(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestFailedPart checks that the program ends with the error of a part that ends.
func TestFailedPart(t *testing.T) {
	s := &scene{failed: make(chan error, 1)}
	want := errors.New("broken")
	s.runs(t.Context(), "a part", func(context.Context) error { return want })
	if err := <-s.failed; !errors.Is(err, want) || err.Error() != "a part has ended: broken" {
		t.Errorf("got %v", err)
	}
}
