package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	opened  time.Time    // when it was opened
	started int64        // the wall clock of then, less the monotonic clock, in nanoseconds
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
	now := time.Now()
	p.monitor = &Monitor{program: p, samples: samples, opened: now, started: now.UnixNano() - mono.Nano()}
	p.monitor.ahead.Store(c.ahead())
	return p.monitor, nil
}

// Now returns the current time as samples and flows have it: setting the wall clock of the host
// later does not change their times.
func (v *Monitor) Now() time.Time { return v.opened.Add(time.Since(v.opened)) }

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
	p.known.clear()
	keys, flows := make([]datapathPair, flowBatch), make([]datapathFlow, flowBatch)
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

// newFlows says how many flows have room before they have rules: one for so many with rules.
const newFlows = 4

// specMonitor enables the monitor stage, if the configuration has it, and sets the sizes of its
// maps.
func specMonitor(spec *ebpf.CollectionSpec, conf *Config, hash *pairHash) error {
	if !conf.has(MonitorStage) {
		spec.Maps[datapathMapSamples].MaxEntries = uint32(os.Getpagesize())
		spec.Maps[datapathMapIgnoredFlows].MaxEntries = 1
		return nil
	}
	entries, err := lruEntries(max(conf.Flows/newFlows, 1))
	if err != nil {
		return err
	}
	spec.Maps[datapathMapFlows].MaxEntries = entries
	spec.Maps[datapathMapKnown].MaxEntries = uint32(conf.Flows + spareFlows)
	spec.Maps[datapathMapSlots].MaxEntries = hash.sets()
	spec.Maps[datapathMapSamples].MaxEntries = samplesSize
	return errors.Join(
		hash.set(spec.Variables[datapathVarPairKeys], spec.Variables[datapathVarSlotsShift]),
		spec.Variables[datapathVarMonitorOn].Set(true),
	)
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
