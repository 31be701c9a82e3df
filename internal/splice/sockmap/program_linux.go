package sockmap

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// defaultPairs is the number of pairs that there is room for.
const defaultPairs = 65536

// Program is the program in the kernel with its sockets. All methods may be called
// concurrently.
type Program struct {
	objects  sockmapObjects
	epoll    int // of both sockets of all pairs, for their ends
	wake     int // an event: the program was closed
	watching sync.WaitGroup
	closing  sync.Once
	closeErr error

	room int // for pairs

	mu     sync.Mutex // guards the following
	closed bool
	last   int32
	pairs  map[int32]*Pair // by number
}

// Load loads the program into the kernel, with room for a number of pairs, and tests on
// loopback whether the kernel relays as it should. This takes a second, and leaves nothing
// behind. 0 is room for 65536 pairs. The caller closes the program.
//
// Load returns a [*RefusedError] if the kernel has failed a test, ErrUnsupported if it has no
// sockmap, and ErrPermission if the process lacks a capability.
func Load(room int) (*Program, error) {
	p, err := LoadUntested(room)
	if err != nil {
		return nil, err
	}
	if err := selfTest(p.relay); err != nil {
		return nil, fmt.Errorf("sockmap: %w", errors.Join(err, p.Close()))
	}
	return p, nil
}

// LoadUntested is Load without the test of the kernel, for tests and comparisons.
func LoadUntested(room int) (*Program, error) {
	p := &Program{room: cmp.Or(room, defaultPairs), epoll: -1, wake: -1, pairs: make(map[int32]*Pair)}
	if err := p.load(); err != nil {
		return nil, fmt.Errorf("sockmap: load: %w", errors.Join(explain(err), p.release()))
	}
	p.watching.Go(p.watch)
	return p, nil
}

func (p *Program) load() error {
	spec, err := loadSockmap()
	if err != nil {
		return err
	}
	for _, m := range spec.Maps {
		m.MaxEntries = uint32(2 * p.room)
	}
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return err
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: p.objects.Sources.FD(), Program: p.objects.QuicwayToPeer, Attach: ebpf.AttachSkSKBStreamVerdict,
	})
	if err != nil {
		return err
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &unix.EpollEvent{Events: unix.EPOLLIN})
}

// explain returns an error that wraps one of the package, if one fits.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// release closes what load has opened.
func (p *Program) release() error {
	errs := []error{p.objects.Close()}
	for _, fd := range []int{p.epoll, p.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// Close resets all pairs and unloads the program. Further calls return what the first one has
// returned.
func (p *Program) Close() error {
	p.closing.Do(func() {
		p.mu.Lock()
		p.closed = true
		var pairs []*Pair
		for _, pair := range p.pairs {
			pairs = append(pairs, pair)
		}
		p.mu.Unlock()
		for _, pair := range pairs {
			pair.Abort()
		}
		_, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		p.watching.Wait()
		if err = errors.Join(err, p.release()); err != nil {
			p.closeErr = fmt.Errorf("sockmap: close: %w", err)
		}
	})
	return p.closeErr
}

// add gives a pair a number.
func (p *Program) add(pair *Pair) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case len(p.pairs) >= p.room:
		return ErrFull
	}
	for pair.number == 0 || p.pairs[pair.number] != nil { // 0 is that of wake
		p.last++
		pair.number = p.last
	}
	p.pairs[pair.number] = pair
	return nil
}

func (p *Program) remove(pair *Pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, pair.number)
}

// pair returns a pair that is running, or nil.
func (p *Program) pair(number int32) *Pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairs[number]
}

// insert lets the program see what two sockets receive. Both are peers before either is a
// source, because what has no peer is dropped.
func (p *Program) insert(sides *[2]side) error {
	put := func(m *ebpf.Map, cookie uint64, s *side) error {
		return s.control(func(fd int) error { return m.Put(cookie, uint64(fd)) })
	}
	for i := range sides {
		if err := put(p.objects.Peers, sides[i].cookie, &sides[1-i]); err != nil {
			return fmt.Errorf("map of peers: %w", err)
		}
	}
	for i := range sides {
		if err := put(p.objects.Sources, sides[i].cookie, &sides[i]); err != nil {
			return fmt.Errorf("map of sources: %w", err)
		}
	}
	for i := range sides {
		if err := sides[i].wake(); err != nil {
			return fmt.Errorf("SO_RCVLOWAT: %w", err)
		}
	}
	return nil
}

// withdraw undoes insert. It says whether the kernel has relayed nothing, and the sockets are as
// they were.
func (p *Program) withdraw(sides *[2]side) bool {
	untouched := true
	for i := range sides {
		for _, m := range []*ebpf.Map{p.objects.Sources, p.objects.Peers} {
			if err := m.Delete(sides[i].cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				untouched = false
			}
		}
		relayed, err := sides[i].relayed()
		untouched = untouched && err == nil && relayed == 0
	}
	return untouched
}
