package p2p

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
)

// TestLearnedRelaysAreForgotten checks that a relay that names hosts which are no relays has an
// endpoint send little to few of them, and nothing after a while.
func TestLearnedRelaysAreForgotten(t *testing.T) {
	for name, used := range map[string]bool{"connection ended": false, "connection": true} {
		t.Run(name, func(t *testing.T) { runFleet(t, 1, func(f *fleet) { f.learned(used) }) })
	}
}

func (f *fleet) learned(used bool) {
	var mu sync.Mutex // guards sent
	sent := make(map[string]int)
	f.net.Filter(func(p nettest.Packet) bool {
		if addr := p.To.Addr().String(); strings.HasPrefix(addr, "203.0.113.") {
			mu.Lock()
			defer mu.Unlock()
			sent[addr] += len(p.Data)
		}
		return true
	})
	x, y := f.host(nil), f.host(nil)
	a, b := f.connect(x, y)
	var named []control.Member
	for i := range 15 {
		named = append(named, control.Member{Addr: fmt.Sprintf("203.0.113.%d:53", i+1)})
	}
	client := a.link.leg().client
	for range 3 {
		client.drains(client.present(), named)
	}
	client.present().isDraining.Store(false)
	if !used {
		_ = a.CloseWithError(0, "")
		_ = b.CloseWithError(0, "")
	}
	time.Sleep(learnedFor + 2*listEvery)
	mu.Lock()
	total := 0
	for _, n := range sent {
		total += n
	}
	if len(sent) > maxLearned || total > maxLearned*100_000 || !used && total > maxLearned*20_000 {
		f.Errorf("%d bytes to strangers: %v", total, sent)
	}
	clear(sent)
	mu.Unlock()
	time.Sleep(time.Hour)
	mu.Lock()
	defer mu.Unlock()
	if len(sent) > 0 || len(x.Relays()) != 1 {
		f.Errorf("later: to %v, relays %+v", sent, x.Relays())
	}
}

// TestLearnedRelayWithAnotherKey checks that a relay that is not the one named leaves the list at
// once, and is not asked again.
func TestLearnedRelayWithAnotherKey(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y := f.host(nil), f.host(nil)
		a, b := f.connect(x, y)
		s := x.list
		s.mu.Lock()
		r := f.at(1)
		r.Pin = someID(t)
		s.entries = append(s.entries, &relayEntry{relay: r, learned: time.Now()})
		s.mu.Unlock()
		s.start()
		time.Sleep(time.Second)
		if n := len(x.Relays()); n != 1 {
			f.Errorf("%d relays, want 1", n)
		}
		packets := f.servers[1].Stats().ControlPackets
		time.Sleep(time.Hour)
		if n := f.servers[1].Stats().ControlPackets - packets; n > 10 {
			f.Errorf("%d packets to another relay", n)
		}
		f.alive(a, b)
	})
}

// TestLearnedRelayDies checks that a learned relay is measured again when its control connection
// has shown that it is dead, before a measurement has.
func TestLearnedRelayDies(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x := f.host(nil)
		client, err := x.relays.acquire(f.at(1))
		if err != nil {
			f.Fatal(err)
		}
		defer x.relays.release(client)
		if _, err := client.current(f.Context()); err != nil {
			f.Fatal(err)
		}
		now, s := time.Now(), x.list
		entry := &relayEntry{relay: f.at(1), learned: now, measured: now}
		s.mu.Lock()
		s.entries = append(s.entries, entry)
		s.mu.Unlock()
		f.kill(1)
		time.Sleep(2 * time.Minute)
		if n := len(s.order()); n != 2 || entry.err == nil {
			f.Fatalf("%d relays, the learned one has %v", n, entry.err)
		}
		s.want()
		if due := s.due(time.Now()); !slices.Contains(due, entry) {
			f.Error("the dead relay is not measured")
		}
	})
}

// TestRelaySourceThatHangs checks that an endpoint uses its configured relays while the source of
// others does not answer, and that Close ends the source.
func TestRelaySourceThatHangs(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		ended := make(chan struct{})
		x := f.host(func(c *Config) {
			f.several(c)
			c.RelaySource = func(ctx context.Context) ([]Relay, error) {
				<-ctx.Done()
				time.Sleep(time.Second)
				close(ended)
				return nil, ctx.Err()
			}
		})
		began := time.Now()
		f.connect(x, f.host(nil))
		if d := time.Since(began); d > 2*time.Second {
			f.Errorf("connected after %v", d)
		}
		_ = x.Close()
		select {
		case <-ended:
		default:
			f.Error("Close does not wait for the source")
		}
	})
}
