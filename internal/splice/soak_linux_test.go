package splice

import (
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/tcptest"
)

// soakVariable is the environment variable that makes TestSoak run for long.
const soakVariable = "QUICWAY_SPLICE_SOAK"

// TestThousand takes 1000 connections over, which are all open at the same time, and most of them back.
func TestThousand(t *testing.T) {
	const connections = 1000
	r := newLineLab(t, false, nil)
	var taken atomic.Int32
	var counters map[string]nettest.Counters
	all := make(chan struct{}) // have been taken over, or one has failed
	release := sync.OnceFunc(func() {
		counters = r.counters()
		close(all)
	})
	r.each = func(c *tcptest.Conn) {
		pair := r.mustTake(c, 0)
		if taken.Add(1) == connections {
			release()
		}
		<-all
		if pair == nil {
			return
		}
		if rand.IntN(4) == 0 || !r.back(c, pair) {
			<-pair.Done()
		}
	}
	r.start()
	var running sync.WaitGroup
	for i := range connections {
		x := tcptest.Exchange{Seed: uint64(i), Up: 8 << 10, Down: 8 << 10, End: tcptest.Ends()[i%3], Half: all, Timeout: 8 * time.Minute}
		running.Go(func() {
			err := r.ends.Run(x, r.dial(r.client, labNear))
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				release()
			}
		})
	}
	running.Wait()
	r.faultless(counters)
	t.Logf("%v", &r.outcome)
	r.leftovers()
	if n := r.outcome.of(wasTaken); n != connections {
		t.Errorf("%d connections were taken over, want %d", n, connections)
	}
}

// TestSoak takes connections over and back 10 000 times, on lines that lose and reorder. It needs
// [soakVariable], and some minutes.
func TestSoak(t *testing.T) {
	if os.Getenv(soakVariable) == "" {
		t.Skip("runs for minutes: make splice-soak")
	}
	const wanted, atOnce = 10000, 100
	began := time.Now()
	r := newLineLab(t, false, nil)
	r.set(nettest.LineConditions{Delay: time.Millisecond, Loss: 0.002, Reorder: 0.005, Duplicate: 0.001})
	r.each = func(c *tcptest.Conn) { r.churn(c, 20, 40*time.Millisecond) }
	r.start()
	var exchanges atomic.Uint64
	var running sync.WaitGroup
	for i := range atOnce {
		running.Go(func() {
			for r.outcome.of(wasReturned) < wanted && !t.Failed() {
				// Some send all the time, and others pause often.
				x := tcptest.Exchange{Seed: exchanges.Add(1), Up: 64 << 10, Down: 64 << 10, End: tcptest.Ends()[rand.IntN(3)], Pause: 100 * time.Millisecond, Timeout: 5 * time.Minute}
				if i%10 == 0 {
					x.Up, x.Down, x.Pause = 4<<20, 4<<20, 4*time.Millisecond
				}
				if err := r.ends.Run(x, r.dial(r.client, labNear)); err != nil {
					t.Errorf("%d up, %d down, %v: %v", x.Up, x.Down, x.End, err)
				}
			}
		})
	}
	running.Wait()
	t.Logf("%d exchanges in %v: %v, %d packets lost", exchanges.Load(), time.Since(began).Round(time.Second), &r.outcome, r.lost())
	r.leftovers()
}
