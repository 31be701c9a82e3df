package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/quicway/quicway/relay"
)

// good returns the result of a stage without a failure.
func good(stage string) *result {
	r := newResult(stage, &options{memory: 1 << 20})
	r.connected.Store(1)
	r.equal.Store(2)
	r.attacked.Store(1)
	r.bodies.Store(1)
	r.happened("link down")
	r.add(&relay.Stats{ForwardedPackets: 10, OffloadedPackets: 10})
	r.before = usage{goroutines: 3, descriptors: 20, heap: 5 << 20}
	r.after = usage{goroutines: 3, descriptors: 19, heap: 5<<20 + 1<<19}
	return r
}

// TestResult checks that a stage fails for each thing that it has lost, not released, or not
// tried.
func TestResult(t *testing.T) {
	for name, spoil := range map[string]func(*result){
		"transfer":       func(r *result) { r.broke(errors.New("other bytes")) },
		"no transfers":   func(r *result) { r.equal.Store(0) },
		"no connections": func(r *result) { r.connected.Store(0) },
		"no outages":     func(r *result) { clear(r.events) },
		"no flood":       func(r *result) { r.attacked.Store(0) },
		"no bodies":      func(r *result) { r.bodies.Store(0) },
		"no XDP":         func(r *result) { r.kernel = 0 },
		"goroutine":      func(r *result) { r.after.goroutines++ },
		"descriptor":     func(r *result) { r.after.descriptors += 2 },
		"heap":           func(r *result) { r.after.heap += 1 << 20 },
		"store":          func(r *result) { r.after.store++ },
		"store's error":  func(r *result) { r.add(&relay.Stats{StoreErrors: 1}) },
		"route":          func(r *result) { r.after.routes++ },
		"kernel session": func(r *result) { r.after.sessions++ },
		"session":        func(r *result) { r.left[0]++ },
		"leg":            func(r *result) { r.left[1]++ },
	} {
		r := good("xdp")
		if !r.ok() {
			t.Fatal("a good result fails")
		}
		spoil(r)
		var out bytes.Buffer
		r.print(&out)
		if r.ok() || !strings.HasSuffix(out.String(), "xdp: FAIL\n") {
			t.Errorf("%s: passes", name)
		}
	}
}
