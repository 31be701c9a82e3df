// Package netmon says which addresses this host has that a peer may reach, and
// tells when they change: by netlink on Linux, by looking again elsewhere and where
// netlink is denied.
package netmon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultInterval = 10 * time.Second
	defaultSettle   = 250 * time.Millisecond
)

// Address is one of the host's.
type Address struct {
	Interface string     // the name of the interface that has it; "" if it is not known
	Addr      netip.Addr // with a zone if it is IPv6 link-local
	Role      Role       // of the interface
}

// String returns the interface and the address.
func (a Address) String() string { return fmt.Sprintf("{%s %v}", a.Interface, a.Addr) }

// Role is what an interface is for, as far as that can be told.
type Role uint8

// The roles.
const (
	// Plain is an interface of which nothing is known.
	Plain Role = iota
	// Uplink has a default route.
	Uplink
	// Inner joins what runs on this host: a bridge or a virtual cable, without a
	// default route.
	Inner
)

// innerNames begin the names of interfaces that containers and virtual machines
// hang on, where the system does not say what an interface is.
var innerNames = []string{"br-", "docker", "veth", "virbr", "lxcbr", "lxdbr", "cni", "podman", "cali", "flannel", "vmnet", "vboxnet", "vnet"}

// innerName says whether a name is such a one.
func innerName(name string) bool {
	return slices.ContainsFunc(innerNames, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Config says what is listed, and when. Its zero value, and nil, work.
type Config struct {
	// LinkLocal lists link-local addresses (RFC 3927, RFC 4291 §2.5.6), too.
	LinkLocal bool
	// All lists all addresses, also those that nobody else reaches: of the
	// loopback interface, of interfaces that are down, or link-local, or not
	// to be used (any more).
	All bool
	// Filter, if not nil, keeps the addresses for which it returns true. It
	// must not block.
	Filter func(Address) bool
	// List replaces the system's list, which is then looked at every
	// Interval: for tests, and for systems that do not let everybody see
	// the interfaces. Loopback, unspecified and multicast addresses are left
	// out of it. nil is the system's.
	List func() ([]Address, error)
	// Interval is how often to look where the system does not tell of
	// changes. The default is 10 seconds.
	Interval time.Duration
	// Partial makes do with the addresses that packets to other hosts would come
	// from, looked at every Interval, if the system does not let this process
	// list all or hear of changes, as Android does not. Without it New fails.
	Partial bool
	// Settle is how long to wait after a change for those that come with it,
	// as they do when an interface comes up. The default is 250 ms.
	Settle time.Duration
}

func (c *Config) withDefaults() *Config {
	conf := Config{}
	if c != nil {
		conf = *c
	}
	if conf.Interval <= 0 {
		conf.Interval = defaultInterval
	}
	if conf.Settle <= 0 {
		conf.Settle = defaultSettle
	}
	return &conf
}

// system is where addresses come from.
type system interface {
	list() ([]Address, error)
	// wait returns when addresses may have changed, or ctx is done.
	wait(ctx context.Context)
	close() error
}

// Monitor watches the host's addresses. Its methods may be called concurrently.
type Monitor struct {
	conf    *Config
	system  system
	changes chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
	close   func() error

	mu    sync.Mutex
	addrs []Address
	err   error // of the last look
}

// New lists the addresses and starts to watch, in the network namespace of the
// caller. It fails if they cannot be listed. The caller closes the monitor.
func New(cfg *Config) (*Monitor, error) {
	conf := cfg.withDefaults()
	s, err := open(conf)
	if err != nil {
		return nil, err
	}
	m := &Monitor{conf: conf, system: s, changes: make(chan struct{}, 1), done: make(chan struct{})}
	if m.addrs, err = m.list(); err != nil {
		return nil, closeWith(s, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.close = sync.OnceValue(func() error {
		cancel()
		<-m.done
		return s.close()
	})
	go m.run(ctx)
	return m, nil
}

// open chooses the system, and lists for the first time.
func open(conf *Config) (system, error) {
	if conf.List != nil {
		return &poll{lister: conf.List, interval: conf.Interval}, nil
	}
	s, err := openSystem(conf)
	if err == nil {
		if _, err = s.list(); err == nil {
			return s, nil
		}
		err = closeWith(s, err)
	}
	if !conf.Partial {
		return nil, err
	}
	return &poll{lister: sources, interval: conf.Interval}, nil
}

func closeWith(s system, err error) error {
	_ = s.close()
	return err
}

// Addresses returns the addresses as they were last seen, in a stable order.
func (m *Monitor) Addresses() []Address {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.addrs)
}

// Err returns why the last look failed, or nil. After a failure Addresses are those
// of the look before. Another is taken after Interval.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Changes is readable when Addresses has changed since it was last read. It is
// closed with the monitor.
func (m *Monitor) Changes() <-chan struct{} { return m.changes }

// Close ends the watch. It may be called again.
func (m *Monitor) Close() error { return m.close() }

func (m *Monitor) run(ctx context.Context) {
	defer close(m.done)
	defer close(m.changes)
	failed := false
	for ctx.Err() == nil {
		pause := m.conf.Settle
		if failed {
			pause = m.conf.Interval // there may be no event that says when it works
		} else {
			m.system.wait(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			failed = !m.update()
		}
	}
}

// update looks again, and says whether that worked. A list that fails leaves what
// is known.
func (m *Monitor) update() bool {
	addrs, err := m.list()
	m.mu.Lock()
	m.err = err
	changed := err == nil && !slices.Equal(addrs, m.addrs)
	if changed {
		m.addrs = addrs
	}
	m.mu.Unlock()
	if !changed {
		return err == nil
	}
	select {
	case m.changes <- struct{}{}:
	default: // one is unread, and stands for this as well
	}
	return true
}

// list returns what may be used, in order.
func (m *Monitor) list() ([]Address, error) {
	addrs, err := m.system.list()
	if err != nil {
		return nil, err
	}
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a Address) bool { return !m.conf.usable(a) })
	for i := range addrs {
		if a := &addrs[i]; a.Role == Plain && innerName(a.Interface) {
			a.Role = Inner
		}
	}
	slices.SortFunc(addrs, func(a, b Address) int {
		if a.Interface != b.Interface {
			return strings.Compare(a.Interface, b.Interface)
		}
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return cmp.Compare(a.Role, b.Role)
	})
	return slices.Compact(addrs), nil
}

// usable says whether somebody else may reach a.
func (c *Config) usable(a Address) bool {
	switch addr := a.Addr; {
	case c.All:
		return addr.IsValid() && (c.Filter == nil || c.Filter(a))
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsLoopback(), addr.IsMulticast():
		return false
	case addr.IsLinkLocalUnicast() && !c.LinkLocal:
		return false
	}
	return c.Filter == nil || c.Filter(a)
}
