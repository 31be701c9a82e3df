package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/quicway/quicway/relay/sni"
)

// TestScene checks what the scene prints.
func TestScene(t *testing.T) {
	var out bytes.Buffer
	if err := runScene(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"kafka1.server.test: 4194304 bytes", "kafka3.server.test: 4194304 bytes", "HTTP/2.0", "unrecognized name", "3 relayed", "no_route 1",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
}

// TestParseRoute checks the values of -route.
func TestParseRoute(t *testing.T) {
	for s, want := range map[string]*sni.Route{
		"a.test=127.0.0.1:1":               {Names: []string{"a.test"}, Upstreams: []string{"127.0.0.1:1"}},
		"*.b.test,c.test=h:1,[::1]:2":      {Names: []string{"*.b.test", "c.test"}, Upstreams: []string{"h:1", "[::1]:2"}},
		"a.test acme-tls/1 h2=127.0.0.1:1": {Names: []string{"a.test"}, ALPN: []string{"acme-tls/1", "h2"}, Upstreams: []string{"127.0.0.1:1"}},
		"=127.0.0.1:1":                     {Names: []string{""}, Upstreams: []string{"127.0.0.1:1"}},
		"refused.test=":                    {Names: []string{"refused.test"}},
	} {
		got, err := parseRoute(s)
		if err != nil || !slices.Equal(got.Names, want.Names) || !slices.Equal(got.ALPN, want.ALPN) || !slices.Equal(got.Upstreams, want.Upstreams) {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
	if _, err := parseRoute("a.test"); err == nil {
		t.Error("a route without servers is taken")
	}
}

// TestBadOptions checks that errors say what to do.
func TestBadOptions(t *testing.T) {
	for want, o := range map[string]options{
		"no routes: want -route": {balance: "round-robin"},
		"unknown -balance":       {plain: "h:1", balance: "x"},
		"-proxy-from":            {plain: "h:1", balance: "round-robin", from: "x"},
	} {
		if _, err := o.config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
