package splice

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netns"
)

const (
	// sweepEvery is how often the keeper looks for what an event was lost for.
	sweepEvery = time.Second
	// lingers is how long the entry of a pair that has ended forwards late packets.
	lingers = 60 * time.Second
)

// keeper moves pairs from one state to the next. Its goroutine alone changes pairs, and stays on a
// thread in the network namespace of the program, where it makes sockets.
type keeper struct {
	log    *slog.Logger
	table  *pairTable
	flows  *flowTable
	peeker *peeker
	ring   *ringbuf.Reader
	pin    *pin
	counts [endOfReasons - kernelReasons]atomic.Uint64

	calls   chan func()
	events  chan event
	stop    chan struct{} // closed by close
	readers sync.WaitGroup
	done    chan struct{} // closed when the goroutine has ended

	// Used by the goroutine only.
	steps    []*step
	begun    []*step                // since the last look at steps
	pairs    map[uint32]*Pair       // that have not ended, by slot
	ended    []ended                // in the order of their times
	unused   []uint32               // slots that were used before, in the order of their ends
	fresh    uint32                 // the first slot that was never used
	attached map[uint32]*attachment // by index of the interface
	closing  bool                   // no more pairs are taken
	reading  bool                   // a goroutine reads the ring of events
	swept    time.Time
}

func (k *keeper) count(why Reason) { k.counts[why-kernelReasons].Add(1) }

// step is something that takes a pair to another state, and waits for the ends meanwhile.
type step struct {
	due time.Time
	// advance does what is due, and returns after which time it wants to be called again: 0 if
	// the step is complete.
	advance func(now time.Time) time.Duration
}

// newKeeper starts the goroutine on a thread in the namespace of the calling thread.
func newKeeper(p *Program) (*keeper, error) {
	k := &keeper{
		log: p.log, table: p.pairs, flows: p.flows, ring: p.events, pin: p.pin,
		calls: make(chan func()), events: make(chan event, 256),
		stop: make(chan struct{}), done: make(chan struct{}),
		pairs: make(map[uint32]*Pair), attached: make(map[uint32]*attachment),
	}
	if err := tryFreeze(); err != nil {
		return nil, err
	}
	var err error
	if k.peeker, err = newPeeker(); err != nil {
		return nil, err
	}
	namespace, err := netns.Get()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace: %w", err), k.peeker.close())
	}
	started := make(chan error)
	go k.run(namespace, started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, k.peeker.close())
	}
	return k, nil
}

// read passes on events until the ring is closed.
func (k *keeper) read() {
	var record ringbuf.Record
	for {
		if err := k.ring.ReadInto(&record); err != nil {
			return
		}
		e, ok := parseEvent(record.RawSample)
		if !ok {
			continue
		}
		select {
		case k.events <- e:
		case <-k.done:
			return
		}
	}
}

func (k *keeper) run(namespace netns.NsHandle, started chan<- error) {
	defer close(k.done)
	runtime.LockOSThread()
	moved, err := enter(namespace)
	if !moved { // otherwise the thread ends with the goroutine
		defer runtime.UnlockOSThread()
	}
	started <- errors.Join(err, namespace.Close())
	if err != nil {
		return
	}
	timer := time.NewTimer(sweepEvery)
	defer timer.Stop()
	for {
		timer.Reset(k.advance(time.Now()))
		select {
		case f := <-k.calls:
			f()
		case e := <-k.events:
			k.handle(e)
		case <-timer.C:
		case <-k.stop:
			return
		}
	}
}

// enter moves the calling thread into a namespace unless it is there already. Moving needs
// CAP_SYS_ADMIN.
func enter(namespace netns.NsHandle) (moved bool, err error) {
	here, err := netns.Get()
	if err != nil {
		return false, fmt.Errorf("open network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(namespace) {
		return false, nil
	}
	if err := netns.Set(namespace); err != nil {
		return false, fmt.Errorf("enter network namespace: %w", err)
	}
	return true, nil
}

// do calls f on the goroutine, and returns when f has. It returns false if the keeper has been
// closed.
func (k *keeper) do(f func()) bool {
	called := make(chan struct{})
	select {
	case k.calls <- func() { f(); close(called) }:
		<-called
		return true
	case <-k.done:
		return false
	}
}

// close ends the goroutine. The methods of the keeper do nothing afterwards. The ring of events has
// to be closed.
func (k *keeper) close() error {
	if k == nil {
		return nil
	}
	close(k.stop)
	<-k.done
	k.readers.Wait()
	return k.peeker.close()
}

// advance does all that is due, and returns when something else will be.
func (k *keeper) advance(now time.Time) time.Duration {
	if now.Sub(k.swept) >= sweepEvery {
		k.swept = now
		k.sweep(now)
	}
	next := k.swept.Add(sweepEvery)
	k.steps, k.begun = append(k.steps, k.begun...), nil
	kept := k.steps[:0]
	for _, s := range k.steps {
		if !now.Before(s.due) {
			wait := s.advance(now)
			if wait == 0 {
				continue
			}
			s.due = now.Add(wait)
		}
		if s.due.Before(next) {
			next = s.due
		}
		kept = append(kept, s)
	}
	clear(k.steps[len(kept):])
	k.steps = kept
	if len(k.begun) > 0 {
		return 0
	}
	return max(time.Until(next), 0)
}

// begin adds a step, which is due at once.
func (k *keeper) begin(advance func(now time.Time) time.Duration) {
	k.begun = append(k.begun, &step{advance: advance})
}

// pause returns how long a step that has waited for so long waits again: long waits are looked at
// less often, so that many of them cost little.
func pause(waited time.Duration) time.Duration {
	return min(time.Millisecond+waited/16, 10*time.Millisecond)
}

// sweep finds what events were lost for, and frees the entries of pairs that ended long ago.
func (k *keeper) sweep(now time.Time) {
	for _, p := range k.pairs {
		k.look(p)
	}
	for len(k.ended) > 0 && now.Sub(k.ended[0].at) >= lingers {
		k.freeOldest()
	}
	for index, a := range k.attached {
		if a.gone() {
			k.leave(index)
		}
	}
}

// leave has all pairs that use an interface go back to userspace, and refuses others.
func (k *keeper) leave(index uint32) {
	delete(k.attached, index)
	for _, p := range k.using(index) {
		if p.leaving = true; p.taken {
			p.ask(WantedInterface)
			k.count(WantedInterface)
		}
	}
}

// using returns the pairs that use an interface. 0 means all pairs.
func (k *keeper) using(index uint32) (pairs []*Pair) {
	for _, p := range k.pairs {
		if index == 0 || p.entry.Halves[fromClient].Ifindex == index || p.entry.Halves[fromUpstream].Ifindex == index {
			pairs = append(pairs, p)
		}
	}
	return pairs
}
