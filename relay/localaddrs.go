package relay

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/netmon"
)

// localAddrs are the addresses of this host. A goroutine keeps the list current, so that
// the forwarding loops only look it up. As long as the addresses are not known, every
// address may be the host's.
type localAddrs struct {
	list    func() ([]netmon.Address, error) // nil: ask the system
	log     *slog.Logger
	monitor *netmon.Monitor                         // nil: it could not be opened
	known   atomic.Pointer[map[netip.Addr]struct{}] // nil: not known
}

// open begins to watch the addresses in the network namespace of the caller. If it fails,
// watch tries again.
func (o *localAddrs) open() error {
	m, err := netmon.New(&netmon.Config{All: true, List: o.list, Interval: sweepPeriod, Settle: time.Millisecond})
	if err != nil {
		return err
	}
	o.monitor = m
	o.learn()
	return nil
}

// watch keeps the addresses current until ctx is done.
func (o *localAddrs) watch(ctx context.Context) {
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		var changes <-chan struct{}
		if o.monitor != nil || o.open() == nil {
			changes = o.monitor.Changes()
		}
		select {
		case <-ctx.Done():
			return
		case <-changes:
			o.learn()
		case <-ticker.C: // the monitor may have failed, or recovered
			if known := o.known.Load() != nil; o.monitor != nil && known != (o.monitor.Err() == nil) {
				o.learn()
			}
		}
	}
}

// learn copies the monitor's list.
func (o *localAddrs) learn() {
	if err := o.monitor.Err(); err != nil {
		o.known.Store(nil)
		o.fail(err)
		return
	}
	known := make(map[netip.Addr]struct{})
	for _, a := range o.monitor.Addresses() {
		known[a.Addr.WithZone("")] = struct{}{}
	}
	o.known.Store(&known)
}

// fail logs that the addresses are not known. Then a leg at the relay's port is refused,
// because its address may be the relay's own.
func (o *localAddrs) fail(err error) {
	o.log.Warn("the host's addresses cannot be listed; until they can, the relay refuses legs at its own port number", "err", err)
}

// has says whether addr is, or may be, an address of this host.
func (o *localAddrs) has(addr netip.Addr) bool {
	known := o.known.Load()
	if known == nil || addr.IsLoopback() {
		return true
	}
	_, ok := (*known)[addr.WithZone("")]
	return ok
}

// close closes the monitor. It may only be called when watch has returned.
func (o *localAddrs) close() error {
	if o.monitor == nil {
		return nil
	}
	return o.monitor.Close()
}
