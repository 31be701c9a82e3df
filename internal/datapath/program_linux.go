package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Program is the XDP program with its maps. All methods may be called concurrently.
type Program struct {
	log       *slog.Logger
	pin       *pin // nil: the program ends with the process
	objects   datapathObjects
	hashKeys  [hashKeys]uint64
	noPerfmon bool             // the process lacks CAP_PERFMON: the program is slower
	verbose   bool             // errors contain the verifier's log
	stages    []Stage          // that were loaded
	refused   [numStages]error // why the kernel has refused a stage
	relay     Relay
	drops     *ringbuf.Reader // nil: no quota stage
	egress    *egress         // nil: no monitor stage

	mu        sync.Mutex // guards the following
	closed    bool
	quota     *Quota              // nil: no user
	attached  map[int]*attachment // by index of the interface
	followers map[*follower]struct{}
	epoch     uint32      // of cached next hops: see bpf/maps.h
	monitor   *Monitor    // nil: no user
	known     *knownFlows // nil: no monitor stage
	round     uint32      // of the cache of ignored flows: see bpf/flows.h
}

// attachment is the attachment of the program to an interface.
type attachment struct {
	index      int
	name       string // of the interface, when the program was attached
	mode       Mode
	link       link.Link
	byFollower bool // its follower has attached the program, not the caller of Attach

	follower *follower  // nil: nothing follows the interface
	linkMu   sync.Mutex // held while link is used or closed

	egress link.Link // nil: egress packets are not seen
}

// Close detaches the program from all interfaces and unloads it, unless it is pinned.
// [Relay.Events], [Quota.Drops] and [Monitor.Read] return. Further calls do nothing and
// return nil.
func (p *Program) Close() error {
	followers, err := p.close()
	for f := range followers {
		f.stop()
	}
	if err != nil {
		return fmt.Errorf("xdp: close: %w", err)
	}
	return nil
}

// close returns the followers. The caller stops them after it has released the mutex.
func (p *Program) close() (followers map[*follower]struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	p.closed = true
	followers, p.followers = p.followers, nil
	errs := []error{p.relay.events.Close(), p.egress.close(), p.known.close()}
	if p.drops != nil {
		errs = append(errs, p.drops.Close())
	}
	if p.monitor != nil {
		errs = append(errs, p.monitor.closeSamples())
	}
	for _, a := range p.attached {
		if p.pin == nil {
			errs = append(errs, p.detachLocked(a))
		} else {
			errs = append(errs, a.letStay())
		}
	}
	errs = append(errs, p.relay.legs.close(), p.relay.routes.close(), p.relay.notes.Close(), p.objects.Close(), p.pin.close())
	return followers, errors.Join(errs...)
}

// FD returns the program's file descriptor: xdp.Program documents it.
func (p *Program) FD() int { return p.objects.Quicway.FD() }

// SetNext sets the XDP program that gets the packets that this one passes: xdp.Program
// documents it.
func (p *Program) SetNext(fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	var err error
	if fd < 0 {
		if err = p.objects.Next.Delete(uint32(0)); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	} else {
		err = p.objects.Next.Put(uint32(0), uint32(fd))
	}
	if err != nil {
		return fmt.Errorf("xdp: set next program: %w", explain(err))
	}
	return nil
}

// Stats returns the number of packets by reason: xdp.Program documents it.
func (p *Program) Stats() (map[Reason]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	out := make(map[Reason]uint64, endOfReasons)
	err := readCounters(p.objects.Counters, out, 0, numReasons)
	if err == nil && p.StageErr(MonitorStage) == nil {
		err = readCounters(p.objects.Outcomes, out, numReasons, endOfReasons)
	}
	if err != nil {
		return nil, fmt.Errorf("xdp: read counters: %w", err)
	}
	return out, nil
}

// readCounters adds up the counters of all CPUs, for the reasons from first to end.
func readCounters(m *ebpf.Map, out map[Reason]uint64, first, end Reason) error {
	var perCPU []uint64
	for r := first; r < end; r++ {
		if err := m.Lookup(uint32(r-first), &perCPU); err != nil {
			return err
		}
		for _, n := range perCPU {
			out[r] += n
		}
	}
	return nil
}
