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

// Program is the kernel's program with its maps. All methods may be called
// concurrently.
type Program struct {
	log        *slog.Logger
	pin        *pin // nil: everything ends with the process
	objects    datapathObjects
	hashKeys   [hashKeys]uint64
	noPerfmon  bool
	verbose    bool             // the verifier's log is wanted if it refuses the program
	stages     []Stage          // that the program has
	refused    [numStages]error // why the kernel does not take a stage that was asked for
	relay      Relay
	drops      *ringbuf.Reader // nil: no quota stage
	egress     *egress         // nil: no monitor stage
	ruleSetter *ebpf.Program   // nil: no monitor stage

	mu        sync.Mutex // guards the following
	closed    bool
	quota     *Quota              // nil: nobody has it
	attached  map[int]*attachment // by index
	followers map[*follower]struct{}
	epoch     uint32
	monitor   *Monitor // nil: nobody has it
	round     uint32
}

// attachment is the program on an interface.
type attachment struct {
	index      int
	name       string // when it was attached
	mode       Mode
	link       link.Link
	byFollower bool // by its follower, not by the caller of Attach

	follower *follower  // nil: nobody follows
	linkMu   sync.Mutex // held while link is asked, or ended

	egress link.Link // nil: what leaves is not seen
}

// Close detaches the program from all interfaces and removes it from the kernel,
// with its maps, unless it is pinned. [Relay.Events], [Quota.Drops] and
// [Monitor.Read] end. It may be called more than once.
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

// close leaves the followers to the caller, who stops them without the lock.
func (p *Program) close() (followers map[*follower]struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	p.closed = true
	followers, p.followers = p.followers, nil
	errs := []error{p.relay.events.Close(), p.egress.close(), p.ruleSetter.Close()}
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
	errs = append(errs, p.relay.notes.Close(), p.objects.Close(), p.pin.close())
	return followers, errors.Join(errs...)
}

// FD returns the program's file descriptor, for a program of the user's own to
// call it (a tail call through a BPF_MAP_TYPE_PROG_ARRAY). It is valid until
// Close.
func (p *Program) FD() int { return p.objects.Quicway.FD() }

// SetNext makes packets that this program passes go to another XDP program, by
// its file descriptor, which may be closed afterwards. A negative one makes them
// go to the kernel again. That program must be of the same kind: loaded with the
// expected attach type BPF_XDP, and without multi-buffer support.
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

// Stats returns the counters of the stages that the program has, since it was loaded, or since
// the one that it has taken over from was.
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

// readCounters adds up the counters of all processors for the reasons from first to end.
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
