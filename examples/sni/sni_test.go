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
		"kafka1.server.test: 4194304 bytes", "kafka3.server.test: 4194304 bytes", "HTTP/2.0", "HTTP/3.0", "unrecognized name", "3 relayed", "no_route 1",
		"QUIC: 3 flows",
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
		"-pin needs -splice":     {plain: "h:1", balance: "round-robin", pin: "/sys/fs/bpf/x"},
	} {
		if _, err := o.config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestSpliceOption checks that the interfaces of -splice get to the relay, and what the table
// says about the kernel.
func TestSpliceOption(t *testing.T) {
	o := options{plain: "h:1", balance: "round-robin", splice: "eth0,eth1", pin: "/sys/fs/bpf/x"}
	conf, err := o.config()
	if err != nil || !slices.Equal(conf.Splice.Interfaces, []string{"eth0", "eth1"}) || conf.Splice.Pin != o.pin {
		t.Errorf("got %+v, %v", conf.Splice, err)
	}
	for want, stats := range map[string]sni.SpliceStats{
		"":                               {},
		"all in userspace: too old":      {Off: "too old"},
		"2 in the kernel; 7 takeovers":   {InKernel: 2, Takeovers: 7},
		"left in userspace: policy 4;":   {NotTaken: map[string]uint64{"policy": 4}},
		"came back: policy 1, too_big 2": {Takeovers: 1, WaysBack: map[string]uint64{"too_big": 2, "policy": 1}},
	} {
		var out bytes.Buffer
		if printSplice(&out, &stats); !strings.Contains(out.String(), want) || want == "" && out.Len() > 0 {
			t.Errorf("%+v: got %q, want %q", stats, &out, want)
		}
	}
}
