// Package netmon lists the addresses at which others may reach this host, and reports
// changes: by netlink on Linux, and by polling on other systems and where netlink is not
// permitted.
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

// Address is an address of the host.
type Address struct {
	Interface string     // the name of its interface; "" if it is not known
	Addr      netip.Addr // with a zone if it is IPv6 link-local
	Role      Role       // of the interface
}

// String returns the interface and the address.
func (a Address) String() string { return fmt.Sprintf("{%s %v}", a.Interface, a.Addr) }

// Role is the purpose of an interface, as far as it is known.
type Role uint8

// The roles.
const (
	// Plain is an interface whose purpose is not known.
	Plain Role = iota
	// Uplink has a default route.
	Uplink
	// Inner connects containers or virtual machines of this host: a bridge or virtual
	// cable without a default route.
	Inner
)

// innerNames are the prefixes of the names of interfaces that usually are Inner.
var innerNames = []string{"br-", "docker", "veth", "virbr", "lxcbr", "lxdbr", "cni", "podman", "cali", "flannel", "vmnet", "vboxnet", "vnet"}

// innerName says whether a name begins with one of innerNames.
func innerName(name string) bool {
	return slices.ContainsFunc(innerNames, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Config configures a [Monitor]. nil means the zero value.
type Config struct {
	// LinkLocal also lists link-local addresses (RFC 3927, RFC 4291 §2.5.6).
	LinkLocal bool
	// All lists all addresses, also those of the loopback interface and of interfaces
	// that are down, and link-local, tentative and deprecated ones.
	All bool
	// Filter, if not nil, keeps the addresses for which it returns true. It
	// must not block.
	Filter func(Address) bool
	// List replaces the system's list of addresses, for tests and for systems that do
	// not permit listing the interfaces. It is called every Interval. Loopback,
	// unspecified and multicast addresses are removed. nil means the system's list.
	List func() ([]Address, error)
	// Interval is the polling period where the system does not report changes. 0 means
	// 10 seconds.
	Interval time.Duration
	// Partial permits an incomplete list if the system does not let this process list
	// all addresses or watch them, as on Android: the source addresses of packets to
	// other hosts, every Interval. Without Partial, New fails there.
	Partial bool
	// Settle is how long to wait after a change for further ones, such as follow when
	// an interface comes up. 0 means 250 ms.
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

// system is the source of addresses.
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
	err   error // of the last listing
}

// New lists the addresses in the network namespace of the calling thread, and starts to
// watch them. It fails if they cannot be listed. The caller closes the monitor.
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

// open chooses the system. It checks that it can list addresses.
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

// Addresses returns the addresses as they were last listed, in a stable order.
func (m *Monitor) Addresses() []Address {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.addrs)
}

// Err returns why the last listing failed, or nil. After a failure, Addresses returns those
// listed before, and the next listing is after Interval.
func (m *Monitor) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Changes returns a channel that gets a value when Addresses has changed since the last
// value was read. It is closed when the monitor is closed.
func (m *Monitor) Changes() <-chan struct{} { return m.changes }

// Close stops watching. It may be called several times.
func (m *Monitor) Close() error { return m.close() }

func (m *Monitor) run(ctx context.Context) {
	defer close(m.done)
	defer close(m.changes)
	failed := false
	for ctx.Err() == nil {
		pause := m.conf.Settle
		if failed {
			pause = m.conf.Interval // there may be no event when listing works again
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

// update lists the addresses again, and returns whether that worked. After a failure the
// old ones stay.
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
	default: // an unread value stands for this change as well
	}
	return true
}

// list returns the usable addresses, sorted.
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

// usable says whether others may reach a.
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
