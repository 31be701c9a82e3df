package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// progressBound is how long a connection may need to deliver data while there is a path.
// After an outage of the relay, both peers must connect to it and register their legs, and
// quic-go must retransmit what was lost before.
const progressBound = 30 * time.Second

// TestChaos checks that data arrives as long as the relay or a direct path works, with
// random faults of the network, and that nothing is left at the end.
func TestChaos(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			runLabSeeded(t, seed, func(l *lab) { l.chaos(rand.New(rand.NewPCG(seed, 4))) })
		})
	}
}

func (l *lab) chaos(rng *rand.Rand) {
	g := nettest.Gateway{Filtering: nettest.AddressPortDependent}
	g.Address = "203.0.113.1"
	left := l.behind(g)
	g.Address = "203.0.113.2"
	right := l.behind(g)
	alice, bob := left.peer(nil), right.peer(nil)
	a, b := l.connect(alice, bob)
	ctx, stop := context.WithCancel(context.Background())
	var got atomic.Int64
	flows := make(chan error, 2)
	go func() { flows <- drip(ctx, a, b, &got) }()
	relay, cut := true, false
	for range 25 {
		what := rng.IntN(6)
		switch what {
		case 0:
			left.lan.Forget()
		case 1:
			right.lan.Forget()
		case 2:
			l.net.Outage(time.Duration(rng.IntN(3000)) * time.Millisecond)
		case 3:
			if cut = !cut; cut && relay {
				l.net.Cut("203.0.113.1", "203.0.113.2")
			} else {
				cut = false
				l.net.Mend("203.0.113.1", "203.0.113.2")
			}
		case 4:
			// The relay is stopped only while there is a direct path.
			if relay && a.Path().Kind != Relayed && !cut {
				relay = false
				l.stopRelay()
			} else if !relay {
				relay = true
				l.startRelay()
			}
		case 5:
			left.lan.Renumber(fmt.Sprintf("203.0.113.%d", 1))
		}
		if what != 2 && what != 4 && !relay { // a NAT that forgets needs the relay
			relay = true
			l.startRelay()
		}
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
		before, deadline := got.Load(), time.Now().Add(progressBound)
		for got.Load() == before {
			l.alive(a, b)
			if time.Now().After(deadline) {
				l.Fatalf("nothing gets through after event %d, relay %v, cut %v: paths %v, %v", what, relay, cut, a.Path(), b.Path())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if !relay {
		l.startRelay()
	}
	stop()
	if err := <-flows; err != nil {
		l.Error(err)
	}
	l.gone(a, alice)
	l.gone(b, bob)
}

// drip sends a byte every 50 ms, and counts those that arrive, until ctx is done.
func drip(ctx context.Context, from, to *Conn, got *atomic.Int64) error {
	s, err := from.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() {
		r, err := to.AcceptUniStream(ctx)
		for buf := make([]byte, 64); err == nil; {
			var n int
			n, err = r.Read(buf)
			got.Add(int64(n))
		}
		received <- err
	}()
	for ctx.Err() == nil {
		if _, err := s.Write([]byte{1}); err != nil {
			return errors.Join(err, <-received)
		}
		sleep(ctx, 50*time.Millisecond)
	}
	s.CancelWrite(0)
	<-received
	return nil
}

// gone checks that a connection that has ended leaves nothing at its endpoint.
func (l *lab) gone(c *Conn, h *host) {
	l.Helper()
	_ = c.CloseWithError(0, "")
	<-c.cleaned
	m := h.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.links)+len(m.initials)+len(m.probed) != 0 {
		l.Errorf("%d links, %d first IDs, %d pathfinders are left", len(m.links), len(m.initials), len(m.probed))
	}
}

// chaosSeeds is the number of seeds of a test: n, or what QUICWAY_CHAOS_SEEDS says.
func chaosSeeds(n uint64) uint64 {
	if more, err := strconv.ParseUint(os.Getenv("QUICWAY_CHAOS_SEEDS"), 10, 64); err == nil {
		return more
	}
	return n
}
