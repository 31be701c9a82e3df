package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// samplesSize is the size of the ring of samples, in bytes: room for thousands of handshakes.
const samplesSize = 4 << 20

// Monitor gives access to the monitor stage of a program: the flows that it counts, and the
// packets that it reports. All methods may be called concurrently, except that only one
// goroutine may call Read. After Close of the Monitor or the Program they return ErrClosed.
type Monitor struct {
	program *Program
	samples *ringbuf.Reader
	record  ringbuf.Record
	started int64        // the wall clock when the monotonic clock was 0, in nanoseconds
	ahead   atomic.Int64 // how far the monotonic clock is ahead of the program's, in nanoseconds
	closed  atomic.Bool
	once    sync.Once  // for Close
	ring    sync.Mutex // held while samples must not be closed
}

// Monitor opens the monitor stage. It returns ErrBusy until the previous user has closed it, and
// the error of [Program.StageErr] if the program lacks the stage. The caller closes it.
func (p *Program) Monitor() (*Monitor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.StageErr(MonitorStage) != nil:
		return nil, p.StageErr(MonitorStage)
	case p.monitor != nil:
		return nil, fmt.Errorf("xdp: open monitor stage: %w", ErrBusy)
	}
	samples, err := ringbuf.NewReader(p.objects.Samples)
	if err != nil {
		return nil, fmt.Errorf("xdp: open monitor stage: %w", err)
	}
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return nil, errors.Join(err, samples.Close())
	}
	c, err := p.compareClocks()
	if err != nil {
		return nil, errors.Join(err, samples.Close())
	}
	p.monitor = &Monitor{program: p, samples: samples, started: time.Now().UnixNano() - mono.Nano()}
	p.monitor.ahead.Store(c.ahead())
	return p.monitor, nil
}

// Close removes all flows from the kernel, and makes Read return. Further calls do nothing and
// return nil.
func (v *Monitor) Close() (err error) {
	v.once.Do(func() { err = v.close() })
	return err
}

func (v *Monitor) close() error {
	err := v.closeSamples()
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.monitor == v {
		v.program.monitor = nil
	}
	if !v.program.closed {
		err = errors.Join(err, v.program.forgetFlowsLocked())
	}
	if err != nil {
		return fmt.Errorf("xdp: close monitor stage: %w", err)
	}
	return nil
}

// closeSamples closes the ring, so that Read returns.
func (v *Monitor) closeSamples() error {
	v.closed.Store(true)
	v.ring.Lock()
	defer v.ring.Unlock()
	return v.samples.Close()
}

// forgetFlowsLocked removes all flows, for the next user of the stage.
func (p *Program) forgetFlowsLocked() error {
	keys, flows := make([]pairKey, flowBatch), make([]datapathFlow, flowBatch)
	var cursor ebpf.MapBatchCursor
	for {
		_, err := p.objects.Flows.BatchLookupAndDelete(&cursor, keys, flows, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return p.newRoundLocked()
		}
		if err != nil {
			return err
		}
	}
}

// specMonitor enables the monitor stage, if the configuration has it, and sets the sizes of its
// maps.
func specMonitor(spec *ebpf.CollectionSpec, conf *Config) error {
	if !conf.has(MonitorStage) {
		spec.Maps[datapathMapSamples].MaxEntries = uint32(os.Getpagesize())
		spec.Maps[datapathMapIgnoredFlows].MaxEntries = 1
		return nil
	}
	entries, err := lruEntries(conf.Flows)
	if err != nil {
		return err
	}
	spec.Maps[datapathMapFlows].MaxEntries = entries
	spec.Maps[datapathMapSamples].MaxEntries = samplesSize
	return spec.Variables[datapathVarMonitorOn].Set(true)
}

// newRuleSetter loads the program that sets the rules of a flow.
func newRuleSetter(flows *ebpf.Map) (*ebpf.Program, error) {
	spec, err := loadFlowRules()
	if err != nil {
		return nil, err
	}
	spec.Maps[flowRulesMapFlows].MaxEntries = flows.MaxEntries()
	var wanted struct {
		SetRules *ebpf.Program `ebpf:"quicway_set_rules"`
	}
	err = spec.LoadAndAssign(&wanted, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{flowRulesMapFlows: flows}})
	return wanted.SetRules, err
}

// sampleHeader is the size of struct sample in bpf/flows.h.
const sampleHeader = 32

// Read waits for the next sample. It returns ErrClosed after Close.
func (v *Monitor) Read(s *Sample) error {
	err := v.samples.ReadInto(&v.record)
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("xdp: read sample: %w", err)
	}
	b := v.record.RawSample
	if len(b) < sampleHeader {
		return fmt.Errorf("xdp: read sample: %d bytes", len(b))
	}
	captured := int(binary.NativeEndian.Uint32(b[16:]))
	*s = Sample{
		Time:        v.time(binary.NativeEndian.Uint64(b)),
		Interface:   int(binary.NativeEndian.Uint32(b[8:])),
		Length:      int(binary.NativeEndian.Uint32(b[12:])),
		SegmentSize: int(binary.NativeEndian.Uint16(b[20:])),
		Outbound:    b[22] != 0,
		Data:        b[sampleHeader:min(sampleHeader+captured, len(b))],
	}
	return nil
}

// Pending says whether Read would return a sample at once. After Close it returns false.
func (v *Monitor) Pending() bool {
	v.ring.Lock()
	defer v.ring.Unlock()
	return !v.closed.Load() && v.samples.AvailableBytes() > 0
}

// Lookup returns the flow, and whether it exists.
func (v *Monitor) Lookup(key FlowKey) (Flow, bool, error) {
	return v.get(key, (*ebpf.Map).Lookup)
}

// Take is Lookup that also removes the flow. The next packet adds a new one.
func (v *Monitor) Take(key FlowKey) (Flow, bool, error) {
	return v.get(key, (*ebpf.Map).LookupAndDelete)
}

// get reads the entry of a flow by the given method of the map.
func (v *Monitor) get(key FlowKey, read func(*ebpf.Map, any, any) error) (Flow, bool, error) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return Flow{}, false, ErrClosed
	}
	k, t := pairOf(key), datapathFlow{}
	err := read(p.objects.Flows, &k, &t)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Flow{}, false, nil
	}
	if err != nil {
		return Flow{}, false, fmt.Errorf("xdp: read flow: %w", err)
	}
	return v.flow(&t), true, nil
}

// SetRules sets the rules of a flow, and leaves its counters. It returns false if the flow does
// not exist.
func (v *Monitor) SetRules(key FlowKey, rules *FlowRules) (bool, error) {
	p := v.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || v.closed.Load() {
		return false, ErrClosed
	}
	request := struct { // struct flow_rules in bpf/rule.c
		Pair       pairKey
		WholeAgain uint32
		SetSpin    [2]uint32
		Flow       datapathFlow
	}{Pair: pairOf(key), WholeAgain: bit(rules.WholeAgain)}
	request.Flow.Ignored = bit(rules.Ignored)
	for i := range rules.Directions {
		from, to := &rules.Directions[i], &request.Flow.Direction[i]
		to.Match, to.IdLen, to.Segment = uint8(from.Match), uint8(from.IDLen), uint16(from.Segment)
		to.Id, to.Mask = words(from.ID), mask(from.IDLen)
		if from.Spin != nil {
			request.SetSpin[i], to.Spin = 1, v.spin(from.Spin)
		}
	}
	data, err := binary.Append(nil, binary.NativeEndian, &request)
	if err != nil {
		return false, fmt.Errorf("xdp: set rules of a flow: %w", err)
	}
	found, err := p.ruleSetter.Run(&ebpf.RunOptions{Context: data})
	if err != nil {
		return false, fmt.Errorf("xdp: set rules of a flow: %w", err)
	}
	return found != 0, nil
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
		keys, entries := make([]pairKey, flowBatch), make([]datapathFlow, flowBatch)
		var cursor ebpf.MapBatchCursor
		for err := error(nil); err == nil; {
			var n int
			n, err = v.nextFlows(&cursor, keys, entries)
			for i := range n {
				if !yield(keys[i].key(), v.flow(&entries[i])) {
					return
				}
			}
		}
	}
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

// nextFlows reads the next batch of flows. It releases the program's mutex between batches.
func (v *Monitor) nextFlows(cursor *ebpf.MapBatchCursor, keys []pairKey, entries []datapathFlow) (int, error) {
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

// pairKey is struct pair in bpf/flows.h.
type pairKey struct {
	A, B         [16]byte
	APort, BPort [2]byte
}

func pairOf(k FlowKey) (p pairKey) {
	p.A, p.B = k.A.Addr().As16(), k.B.Addr().As16()
	binary.BigEndian.PutUint16(p.APort[:], k.A.Port())
	binary.BigEndian.PutUint16(p.BPort[:], k.B.Port())
	return p
}

func (p *pairKey) key() FlowKey {
	end := func(ip [16]byte, port [2]byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(ip).Unmap(), binary.BigEndian.Uint16(port[:]))
	}
	return FlowKey{end(p.A, p.APort), end(p.B, p.BPort)}
}

// time and mono convert between wall clock and monotonic clock, in nanoseconds. 0 is the zero
// Time.
func (v *Monitor) time(mono uint64) time.Time {
	if mono == 0 {
		return time.Time{}
	}
	return time.Unix(0, v.started+int64(mono))
}

// last converts a time of the program's clock, as Direction.Last has it. 0 is the zero Time.
func (v *Monitor) last(at uint64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, v.started+v.ahead.Load()+int64(at))
}

func (v *Monitor) mono(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixNano()-v.started, 1))
}

func (v *Monitor) flow(f *datapathFlow) Flow {
	out := Flow{Born: f.Born, Ignored: f.Ignored != 0}
	for i := range f.Direction {
		d, s := &f.Direction[i], &f.Direction[i].Spin
		out.Directions[i] = Direction{
			Matched:    Tally{d.Matched.Packets, d.Matched.Bytes},
			Unreported: Tally{d.Unreported.Packets, d.Unreported.Bytes},
			Last:       v.last(d.Last), Reported: unwords(d.Reported),
			Match: Match(d.Match), ID: unwords(d.Id), IDLen: int(d.IdLen),
			Segment: int(d.Segment), Whole: d.Whole,
			Spin: Spin{
				Edge: v.time(s.Edge), Sum: time.Duration(s.Sum), Half: time.Duration(s.Half),
				Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
				Value: s.Value != 0, Started: s.Started != 0, Renewed: s.Renewed != 0,
			},
		}
	}
	return out
}

func (v *Monitor) spin(s *Spin) datapathSpin {
	return datapathSpin{
		Edge: v.mono(s.Edge), Sum: uint64(s.Sum), Half: uint64(s.Half),
		Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
		Value: uint8(bit(s.Value)), Started: uint8(bit(s.Started)), Renewed: uint8(bit(s.Renewed)),
	}
}

// mask returns the mask for an ID of n bytes.
func mask(n int) [MaxFlowID / 4]uint32 {
	var b [MaxFlowID]byte
	for i := range n {
		b[i] = 0xff
	}
	return words(b)
}

// words and unwords convert an ID from and to 32-bit words in native byte order.
func words(b [MaxFlowID]byte) (w [MaxFlowID / 4]uint32) {
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func unwords(w [MaxFlowID / 4]uint32) (b [MaxFlowID]byte) {
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return b
}
