package relay

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/netmon"
)

// ownAddrs are the addresses of this host, for sockets that hear all of them. A
// packet asks only memory: a goroutine keeps that current. As long as the addresses
// are not known any may be ours.
type ownAddrs struct {
	list    func() ([]netmon.Address, error) // nil: the system's
	log     *slog.Logger
	monitor *netmon.Monitor                         // nil: could not be had
	known   atomic.Pointer[map[netip.Addr]struct{}] // nil: not known
}

// open begins to watch, in the network namespace of the caller. Where that fails
// it is tried again later.
func (o *ownAddrs) open() error {
	m, err := netmon.New(&netmon.Config{All: true, List: o.list, Interval: sweepPeriod, Settle: time.Millisecond})
	if err != nil {
		return err
	}
	o.monitor = m
	o.learn()
	return nil
}

// watch keeps the addresses current until ctx is done.
func (o *ownAddrs) watch(ctx context.Context) {
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
		case <-ticker.C: // the last look may have failed, or succeeded again
			if known := o.known.Load() != nil; o.monitor != nil && known != (o.monitor.Err() == nil) {
				o.learn()
			}
		}
	}
}

// learn takes over what the monitor knows.
func (o *ownAddrs) learn() {
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

// fail logs that nobody may be at our port, since anybody there may be us.
func (o *ownAddrs) fail(err error) {
	o.log.Warn("the host's addresses cannot be listed; no leg may be at the relay's port until they can", "err", err)
}

// has says whether addr is this host's, or may be.
func (o *ownAddrs) has(addr netip.Addr) bool {
	known := o.known.Load()
	if known == nil || addr.IsLoopback() {
		return true
	}
	_, ok := (*known)[addr.WithZone("")]
	return ok
}

// close ends the watch, when nobody watches any more.
func (o *ownAddrs) close() error {
	if o.monitor == nil {
		return nil
	}
	return o.monitor.Close()
}
