package relay

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/test/nettest"
)

// TestOwnAddressesAreCurrent checks that the relay knows the host's current addresses, and
// takes every address for its own while it does not know them, as when there are no file
// descriptors left.
func TestOwnAddressesAreCurrent(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		var now atomic.Pointer[string] // nil: the list fails
		o := localAddrs{log: slog.New(slog.DiscardHandler), list: func() ([]netmon.Address, error) {
			if a := now.Load(); a != nil {
				return []netmon.Address{{Interface: "eth0", Addr: netip.MustParseAddr(*a)}}, nil
			}
			return nil, errors.New("too many open files")
		}}
		if o.open() == nil {
			t.Fatal("no error")
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			o.watch(ctx)
		}()
		defer func() {
			stop()
			<-done
			if err := o.close(); err != nil {
				t.Error(err)
			}
		}()
		first, second := "198.51.100.1", "198.51.100.2"
		want := func(list *string, a, b bool) {
			t.Helper()
			now.Store(list)
			time.Sleep(5 * sweepPeriod)
			synctest.Wait()
			if gotA, gotB := o.has(netip.MustParseAddr(first)), o.has(netip.MustParseAddr(second)); gotA != a || gotB != b {
				t.Errorf("own: %v, %v, want %v, %v", gotA, gotB, a, b)
			}
		}
		want(nil, true, true)
		want(&first, true, false)
		want(&second, false, true)
		want(nil, true, true)
		want(&second, false, true)
		addr := netip.MustParseAddr(first)
		if n := testing.AllocsPerRun(100, func() { o.has(addr) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
