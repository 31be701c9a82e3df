package datapath

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
)

// Lookup returns the flow, and whether it exists.
func (v *Monitor) Lookup(key FlowKey) (Flow, bool, error) {
	return v.get(key, (*ebpf.Map).Lookup, func(_ *knownFlows, f *datapathFlow) datapathFlow { return *f })
}

// Take is Lookup that also removes the flow. The next packet adds a new one.
func (v *Monitor) Take(key FlowKey) (Flow, bool, error) {
	return v.get(key, (*ebpf.Map).LookupAndDelete, (*knownFlows).remove)
}

// get reads a flow by the given method of the map of new flows, or of the table of known ones.
func (v *Monitor) get(key FlowKey, read func(*ebpf.Map, any, any) error, readKnown func(*knownFlows, *datapathFlow) datapathFlow) (Flow, bool, error) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return Flow{}, false, ErrClosed
	}
	k, t := pairOf(key), datapathFlow{}
	if f := p.known.find(&k); f != nil {
		t = readKnown(p.known, f)
		return v.flow(&t), true, nil
	}
	ok, err := p.readNew(&k, &t, read)
	return v.flow(&t), ok, err
}

// readNew reads the flow of a pair by the given method of the map of new flows. It returns false if
// there is none.
func (p *Program) readNew(k *datapathPair, t *datapathFlow, read func(*ebpf.Map, any, any) error) (bool, error) {
	err := read(p.objects.Flows, k, t)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("xdp: read flow: %w", err)
	}
	return true, nil
}

// SetRules sets the rules of a flow, and leaves its counters. It returns false if the flow does
// not exist. The first rules of a flow may remove another flow to make room, but no rules that
// ignore a flow remove one that is not ignored: they are left out then.
func (v *Monitor) SetRules(key FlowKey, rules *FlowRules) (bool, error) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return false, ErrClosed
	}
	var spins [2]*datapathSpin
	for i := range spins {
		if s := rules.Directions[i].Spin; s != nil {
			spins[i] = v.spin(s)
		}
	}
	k := pairOf(key)
	if f := p.known.find(&k); f != nil {
		f.setRules(rules, spins)
		return true, nil
	}
	return v.makeKnownLocked(&k, rules, spins)
}

// makeKnownLocked gives a new flow its first rules.
func (v *Monitor) makeKnownLocked(k *datapathPair, rules *FlowRules, spins [2]*datapathSpin) (bool, error) {
	p := v.program
	var before, since datapathFlow
	if ok, err := p.readNew(k, &before, (*ebpf.Map).Lookup); err != nil || !ok {
		return false, err
	}
	f := before
	f.Pair = *k
	f.setRules(rules, spins)
	known := p.known.add(&f, v.ahead.Load())
	if known == nil {
		return true, nil
	}
	// Packets between these two calls were counted in the map.
	if ok, err := p.readNew(k, &since, (*ebpf.Map).LookupAndDelete); err != nil || !ok {
		return err == nil, err
	}
	known.addUnreported(&since, &before)
	return true, nil
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// flowBatch is the number of flows that are read with one system call.
const flowBatch = 512

// All yields all flows, until the program or the Monitor is closed. A flow that is added or
// removed meanwhile may be missing, or appear twice.
func (v *Monitor) All() iter.Seq2[FlowKey, Flow] {
	return func(yield func(FlowKey, Flow) bool) {
		v.compareClocks()
		_ = v.allKnown(yield) && v.allNew(yield)
	}
}

// allKnown yields the flows with rules, until yield or allKnown returns false.
func (v *Monitor) allKnown(yield func(FlowKey, Flow) bool) bool {
	for from := 0; from >= 0; {
		var some []datapathFlow
		some, from = v.someKnown(from)
		for i := range some {
			if !yield(keyOf(&some[i].Pair), v.flow(&some[i])) {
				return false
			}
		}
	}
	return true
}

// someKnown returns some of the flows with rules, and where to continue. It returns -1 at the end.
func (v *Monitor) someKnown(from int) (some []datapathFlow, next int) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return nil, -1
	}
	return p.known.some(from, flowBatch)
}

// allNew yields the flows without rules.
func (v *Monitor) allNew(yield func(FlowKey, Flow) bool) bool {
	keys, entries := make([]datapathPair, flowBatch), make([]datapathFlow, flowBatch)
	var cursor ebpf.MapBatchCursor
	for err := error(nil); err == nil; {
		var n int
		n, err = v.nextFlows(&cursor, keys, entries)
		for i := range n {
			if !yield(keyOf(&keys[i]), v.flow(&entries[i])) {
				return false
			}
		}
	}
	return true
}

// compareClocks compares the program's clock with the monotonic clock again, because they drift
// apart.
func (v *Monitor) compareClocks() {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return
	}
	if c, err := v.program.compareClocks(); err == nil { // on an error the last comparison stays
		v.ahead.Store(c.ahead())
	}
}

// nextFlows reads the next batch of flows without rules. It releases the program's mutex between batches.
func (v *Monitor) nextFlows(cursor *ebpf.MapBatchCursor, keys []datapathPair, entries []datapathFlow) (int, error) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return 0, ErrClosed
	}
	return p.objects.Flows.BatchLookup(cursor, keys, entries, nil)
}

// ForgetIgnored empties the kernel's cache of ignored flows. Call it when flows are no longer
// ignored.
func (v *Monitor) ForgetIgnored() error {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return ErrClosed
	}
	return p.newRoundLocked()
}

// newRoundLocked invalidates all entries of the cache of ignored flows.
func (p *Program) newRoundLocked() error {
	p.round++
	return errors.Join(p.objects.IgnoredRound.Set(p.round), p.egress.setRound(p.round))
}
