package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"

	"github.com/quicway/quicway/relay"
)

// result is the result of a stage.
type result struct {
	stage   string
	options *options

	connected, equal atomic.Int64 // connections, and transfers one way
	attacked, bodies atomic.Int64 // packets, and requests

	mu       sync.Mutex // guards the following
	failures []string
	redials  map[string]int
	events   map[string]int
	loop     uint64 // packets that the loop has forwarded
	kernel   uint64
	refused  uint64 // requests
	dropped  map[relay.Reason]uint64
	store    uint64 // errors

	before, after usage
	left          [2]int // sessions and legs before the relay was stopped
	evidence      []string
}

func newResult(stage string, o *options) *result {
	return &result{stage: stage, options: o, redials: make(map[string]int),
		events: make(map[string]int), dropped: make(map[relay.Reason]uint64)}
}

// broke records a failure.
func (r *result) broke(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, err.Error())
}

// redial records a failure to connect.
func (r *result) redial(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.redials[err.Error()]++
}

// happened records a fault of the network.
func (r *result) happened(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[name]++
}

// add adds the counters of a relay.
func (r *result) add(s *relay.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loop += s.ForwardedPackets
	r.kernel += s.OffloadedPackets
	r.refused += s.Refused
	r.store += s.StoreErrors
	for why, n := range s.Dropped {
		r.dropped[why] += n
	}
}

// within says whether all resources have been released.
func (r *result) within() bool {
	return !slices.ContainsFunc(r.returns(), func(l line) bool { return !l.ok })
}

// line is a row of the table.
type line struct {
	what, value string
	ok          bool
}

// returns compares the resources before and after.
func (r *result) returns() []line {
	backTo := func(what string, before, after, more int) line {
		return line{what, fmt.Sprintf("%d → %d", before, after), after <= before+more}
	}
	b, a := &r.before, &r.after
	return []line{
		backTo("goroutines", b.goroutines, a.goroutines, 0),
		backTo("descriptors", b.descriptors, a.descriptors, 0),
		backTo("heap, KiB", b.heap>>10, a.heap>>10, r.options.memory>>10),
		backTo("IDs in the store", b.store, a.store, 0),
		backTo("IDs in the kernel's map", b.routes, a.routes, 0),
		backTo("sessions in the kernel's map", b.sessions, a.sessions, 0),
		backTo("sessions at the relay", 0, r.left[0], 0),
		backTo("legs at the relay", 0, r.left[1], 0),
	}
}

// lines returns the rows of the table.
func (r *result) lines() []line {
	redials, events := 0, 0
	for _, n := range r.redials {
		redials += n
	}
	for _, n := range r.events {
		events += n
	}
	forwards := r.loop
	if r.stage == "xdp" {
		forwards = r.kernel
	}
	count := func(n any) string { return fmt.Sprint(n) }
	return append([]line{
		{"connections", count(r.connected.Load()), r.connected.Load() > 0},
		{"failed dials, repeated", count(redials), true},
		{"transfers equal", count(r.equal.Load()), r.equal.Load() > 0},
		{"failed transfers and closes", count(len(r.failures)), len(r.failures) == 0},
		{"packets forwarded by the loop", count(r.loop), r.loop > 0},
		{"packets forwarded by the kernel", count(r.kernel), forwards > 0},
		{"outages and restarts", count(events), events > 0},
		{"packets of the flood", count(r.attacked.Load()), r.attacked.Load() > 0},
		{"unfinished requests", count(r.bodies.Load()), r.bodies.Load() > 0},
		{"errors of the store", count(r.store), r.store == 0},
	}, r.returns()...)
}

// ok says whether every row is right.
func (r *result) ok() bool {
	return !slices.ContainsFunc(r.lines(), func(l line) bool { return !l.ok })
}

// print prints the table and its details.
func (r *result) print(w io.Writer) {
	word := map[bool]string{true: "PASS", false: "FAIL"}
	fmt.Fprintf(w, "\n%s, %d endpoints, %v\n", r.stage, r.options.endpoints, r.options.duration)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range r.lines() {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", l.what, l.value, word[l.ok])
	}
	t.Flush()
	counts(w, "faults", r.events)
	counts(w, "why dials failed", r.redials)
	dropped := make(map[string]int)
	for why, n := range r.dropped {
		if n > 0 {
			dropped[why.String()] = int(n)
		}
	}
	counts(w, "what the relay dropped", dropped)
	const shown = 20
	for _, f := range r.failures[:min(shown, len(r.failures))] {
		fmt.Fprintln(w, "  failed:", f)
	}
	for _, e := range r.evidence {
		fmt.Fprintln(w, e)
	}
	fmt.Fprintf(w, "%s: %s\n", r.stage, word[r.ok()])
}

// counts prints a map, sorted by its keys.
func counts(w io.Writer, title string, m map[string]int) {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, m[key]))
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "  %s: %s\n", title, strings.Join(parts, ", "))
	}
}
