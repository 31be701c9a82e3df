package xdp

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

// samplesSize is that of the ring that samples come by, in bytes: room for
// thousands of handshakes at a time.
const samplesSize = 4 << 20

// Flows is what a program's monitor stage counts, and what it tells of. All
// methods may be called concurrently, but for Read. After Close, or that of the
// program, they return ErrClosed.
type Flows struct {
	program *Program
	samples *ringbuf.Reader
	record  ringbuf.Record
	started int64        // the wall clock, in nanoseconds, when the monotonic one was 0
	ahead   atomic.Int64 // of the program's clock
	closed  atomic.Bool
	once    sync.Once  // closes
	ring    sync.Mutex // held where the samples' memory must not go
}

// Flows opens the flows of a program whose Config has some. They are one
// reader's: it returns ErrBusy until that has closed them, and the error of
// [Program.StageErr] if there are none. The caller closes them.
func (p *Program) Flows() (*Flows, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.StageErr(MonitorStage) != nil:
		return nil, p.StageErr(MonitorStage)
	case p.flows != nil:
		return nil, fmt.Errorf("xdp: open flows: %w", ErrBusy)
	}
	samples, err := ringbuf.NewReader(p.objects.Samples)
	if err != nil {
		return nil, fmt.Errorf("xdp: open flows: %w", err)
	}
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return nil, errors.Join(err, samples.Close())
	}
	c, err := p.askTime()
	if err != nil {
		return nil, errors.Join(err, samples.Close())
	}
	p.flows = &Flows{program: p, samples: samples, started: time.Now().UnixNano() - mono.Nano()}
	p.flows.ahead.Store(c.ahead())
	return p.flows, nil
}

// Close makes the program tell nobody, and forget the flows. Read returns.
func (f *Flows) Close() (err error) {
	f.once.Do(func() { err = f.close() })
	return err
}

func (f *Flows) close() error {
	err := f.closeSamples()
	f.program.mu.Lock()
	defer f.program.mu.Unlock()
	if f.program.flows == f {
		f.program.flows = nil
	}
	if !f.program.closed {
		err = errors.Join(err, f.program.forgetFlowsLocked())
	}
	if err != nil {
		return fmt.Errorf("xdp: close flows: %w", err)
	}
	return nil
}

// closeSamples ends Read.
func (f *Flows) closeSamples() error {
	f.closed.Store(true)
	f.ring.Lock()
	defer f.ring.Unlock()
	return f.samples.Close()
}

// forgetFlowsLocked empties the table, so that the next reader learns anew.
func (p *Program) forgetFlowsLocked() error {
	keys, flows := make([]pairKey, flowBatch), make([]datapathTrack, flowBatch)
	var cursor ebpf.MapBatchCursor
	for {
		_, err := p.objects.Tracks.BatchLookupAndDelete(&cursor, keys, flows, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return p.newRoundLocked()
		}
		if err != nil {
			return err
		}
	}
}

// monitorFlows switches the monitor stage on, if there are flows to count.
func monitorFlows(spec *ebpf.CollectionSpec, flows int) error {
	if flows == 0 {
		spec.Maps[datapathMapSamples].MaxEntries = uint32(os.Getpagesize())
		spec.Maps[datapathMapStrangers].MaxEntries = 1
		return nil
	}
	entries, err := lruEntries(flows)
	if err != nil {
		return err
	}
	spec.Maps[datapathMapTracks].MaxEntries = entries
	spec.Maps[datapathMapSamples].MaxEntries = samplesSize
	return spec.Variables[datapathVarMonitorOn].Set(true)
}

// newLesson loads the program that teaches.
func newLesson(tracks *ebpf.Map) (*ebpf.Program, error) {
	spec, err := loadLesson()
	if err != nil {
		return nil, err
	}
	spec.Maps[lessonMapTracks].MaxEntries = tracks.MaxEntries()
	var wanted struct {
		Teach *ebpf.Program `ebpf:"quicway_teach"`
	}
	err = spec.LoadAndAssign(&wanted, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{lessonMapTracks: tracks}})
	return wanted.Teach, err
}

// sampleHeader is struct sample.
const sampleHeader = 32

// Read waits for the next sample.
func (f *Flows) Read(s *Sample) error {
	err := f.samples.ReadInto(&f.record)
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("xdp: read sample: %w", err)
	}
	b := f.record.RawSample
	if len(b) < sampleHeader {
		return fmt.Errorf("xdp: read sample: %d bytes", len(b))
	}
	captured := int(binary.NativeEndian.Uint32(b[16:]))
	*s = Sample{
		Time:        f.time(binary.NativeEndian.Uint64(b)),
		Interface:   int(binary.NativeEndian.Uint32(b[8:])),
		Length:      int(binary.NativeEndian.Uint32(b[12:])),
		SegmentSize: int(binary.NativeEndian.Uint16(b[20:])),
		Outbound:    b[22] != 0,
		Data:        b[sampleHeader:min(sampleHeader+captured, len(b))],
	}
	return nil
}

// Pending says whether samples wait to be read; after Close none do.
func (f *Flows) Pending() bool {
	f.ring.Lock()
	defer f.ring.Unlock()
	return !f.closed.Load() && f.samples.AvailableBytes() > 0
}

// Lookup returns a flow, and whether there is one.
func (f *Flows) Lookup(key FlowKey) (Flow, bool, error) {
	return f.get(key, (*ebpf.Map).Lookup)
}

// Take is Lookup, and removes the flow: the next packet begins another.
func (f *Flows) Take(key FlowKey) (Flow, bool, error) {
	return f.get(key, (*ebpf.Map).LookupAndDelete)
}

func (f *Flows) get(key FlowKey, read func(*ebpf.Map, any, any) error) (Flow, bool, error) {
	p := f.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || f.closed.Load() {
		return Flow{}, false, ErrClosed
	}
	k, t := pairOf(key), datapathTrack{}
	err := read(p.objects.Tracks, &k, &t)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Flow{}, false, nil
	}
	if err != nil {
		return Flow{}, false, fmt.Errorf("xdp: read flow: %w", err)
	}
	return f.flow(&t), true, nil
}

// Teach says what Go need not see of a flow. It returns false if there is none.
func (f *Flows) Teach(key FlowKey, l *Lesson) (bool, error) {
	p := f.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || f.closed.Load() {
		return false, ErrClosed
	}
	order := struct {
		Pair    pairKey
		More    uint32
		SetSpin [2]uint32
		Track   datapathTrack
	}{Pair: pairOf(key), More: bit(l.More)}
	order.Track.RuledOut = bit(l.RuledOut)
	for i := range l.Lanes {
		from, to := &l.Lanes[i], &order.Track.Lane[i]
		to.Taught, to.IdLen, to.Segment = uint8(from.Taught), uint8(from.IDLen), uint16(from.Segment)
		to.Id, to.Mask = words(from.ID), mask(from.IDLen)
		if from.Spin != nil {
			order.SetSpin[i], to.Spin = 1, f.spin(from.Spin)
		}
	}
	data, err := binary.Append(nil, binary.NativeEndian, &order)
	if err != nil {
		return false, fmt.Errorf("xdp: teach flow: %w", err)
	}
	there, err := p.lesson.Run(&ebpf.RunOptions{Context: data})
	if err != nil {
		return false, fmt.Errorf("xdp: teach flow: %w", err)
	}
	return there != 0, nil
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// flowBatch is how many flows are read at a time.
const flowBatch = 512

// All yields all flows. Those that come and go meanwhile may be left out, or come
// twice.
func (f *Flows) All() iter.Seq2[FlowKey, Flow] {
	return func(yield func(FlowKey, Flow) bool) {
		f.compareClocks()
		keys, tracks := make([]pairKey, flowBatch), make([]datapathTrack, flowBatch)
		var cursor ebpf.MapBatchCursor
		for err := error(nil); err == nil; {
			var n int
			n, err = f.some(&cursor, keys, tracks)
			for i := range n {
				if !yield(keys[i].key(), f.flow(&tracks[i])) {
					return
				}
			}
		}
	}
}

// compareClocks follows the program's clock.
func (f *Flows) compareClocks() {
	f.program.mu.Lock()
	defer f.program.mu.Unlock()
	if f.program.closed {
		return
	}
	if c, err := f.program.askTime(); err == nil { // else it is as far off as before
		f.ahead.Store(c.ahead())
	}
}

func (f *Flows) some(cursor *ebpf.MapBatchCursor, keys []pairKey, tracks []datapathTrack) (int, error) {
	p := f.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || f.closed.Load() {
		return 0, ErrClosed
	}
	return p.objects.Tracks.BatchLookup(cursor, keys, tracks, nil)
}

// Reconsider makes the program look flows that are ruled out up again, for those
// that are not any more.
func (f *Flows) Reconsider() error {
	p := f.program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || f.closed.Load() {
		return ErrClosed
	}
	return p.newRoundLocked()
}

// newRoundLocked makes what is in the map of strangers void.
func (p *Program) newRoundLocked() error {
	p.round++
	return errors.Join(p.objects.StrangersRound.Set(p.round), p.egress.setRound(p.round))
}

// Sights returns how many packets there were of each [Sight].
func (p *Program) Sights() (map[Sight]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	out := make(map[Sight]uint64, numSights)
	var perCPU []uint64
	for s := range numSights {
		if err := p.objects.Sights.Lookup(uint32(s), &perCPU); err != nil {
			return nil, fmt.Errorf("xdp: read counters: %w", err)
		}
		for _, n := range perCPU {
			out[s] += n
		}
	}
	return out, nil
}

// pairKey is struct pair.
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

// time and mono convert between the clocks; 0 is never.
func (f *Flows) time(mono uint64) time.Time {
	if mono == 0 {
		return time.Time{}
	}
	return time.Unix(0, f.started+int64(mono))
}

// last is the time of a lane's, by the program's clock.
func (f *Flows) last(at uint64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, f.started+f.ahead.Load()+int64(at))
}

func (f *Flows) mono(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixNano()-f.started, 1))
}

func (f *Flows) flow(t *datapathTrack) Flow {
	out := Flow{Born: t.Born, RuledOut: t.RuledOut != 0}
	for i := range t.Lane {
		l, s := &t.Lane[i], &t.Lane[i].Spin
		out.Lanes[i] = Lane{
			Known: Tally{l.Known.Packets, l.Known.Bytes}, Held: Tally{l.Held.Packets, l.Held.Bytes}, Last: f.last(l.Last), Told: unwords(l.Told),
			Taught: Taught(l.Taught), ID: unwords(l.Id), IDLen: int(l.IdLen),
			Segment: int(l.Segment), Whole: l.Whole,
			Spin: Spin{
				Edge: f.time(s.Edge), Sum: time.Duration(s.Sum), Half: time.Duration(s.Half),
				Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
				Value: s.Value != 0, Started: s.Started != 0,
			},
		}
	}
	return out
}

func (f *Flows) spin(s *Spin) datapathSpin {
	return datapathSpin{
		Edge: f.mono(s.Edge), Sum: uint64(s.Sum), Half: uint64(s.Half),
		Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
		Value: uint8(bit(s.Value)), Started: uint8(bit(s.Started)),
	}
}

func mask(n int) [MaxFlowID / 4]uint32 {
	var b [MaxFlowID]byte
	for i := range n {
		b[i] = 0xff
	}
	return words(b)
}

// words and unwords convert between bytes and the kernel's words of them.
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
