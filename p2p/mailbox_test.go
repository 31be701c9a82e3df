package p2p

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestOneIdentityTwice checks that two endpoints with one identity do not alternate at
// the mailbox. The displaced one gets ErrIdentityInUse, and peers are served.
func TestOneIdentityTwice(t *testing.T) {
	runLab(t, func(l *lab) {
		id, err := NewIdentity()
		if err != nil {
			l.Fatal(err)
		}
		ctx, cancel := context.WithCancel(l.Context())
		var told, served, packets atomic.Int64
		twin := func(c *Config) { c.Identity = id }
		done := make(chan struct{})
		for _, h := range []*host{l.host(twin), l.host(twin)} {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					switch _, err := h.Accept(ctx); {
					case err == nil:
						served.Add(1)
					case errors.Is(err, ErrIdentityInUse):
						told.Add(1)
					case ctx.Err() == nil:
						l.Errorf("accept: %v", err)
					}
				}
			}()
		}
		l.net.Filter(func(nettest.Packet) bool { packets.Add(1); return true })
		time.Sleep(10 * time.Minute)
		if n := packets.Load(); n > 2000 {
			l.Errorf("%d packets in ten minutes of nothing", n)
		}
		if told.Load() == 0 {
			l.Error("nobody was told")
		}
		l.net.Filter(nil)
		if _, err := l.host(nil).Dial(ctx, id.ID(), nil); err != nil {
			l.Error(err)
		}
		time.Sleep(time.Second)
		if served.Load() != 1 {
			l.Errorf("%d connections served, want 1", served.Load())
		}
		cancel()
		<-done
		<-done
	})
}

// TestPaceOfRequests checks that requests are paced, whatever the relay answers at once.
func TestPaceOfRequests(t *testing.T) {
	for name, answer := range map[string]func(p *pace, asked time.Time){
		"nothing": func(p *pace, asked time.Time) { p.empty(asked, time.Now()) },
		"offers":  func(p *pace, _ time.Time) { p.brought(time.Now()) },
		"another": func(p *pace, _ time.Time) { p.yield(time.Now()) },
	} {
		nettest.Bubble(t, func(t *testing.T) {
			var p pace
			asked := 0
			for end := time.Now().Add(time.Minute); time.Now().Before(end) && asked < 1e5; asked++ {
				p.wait(t.Context())
				answer(&p, time.Now())
			}
			if most := offerBurst + int(time.Minute/offerEvery) + 1; asked > most {
				t.Errorf("%s: asked %d times in a minute, want at most %d", name, asked, most)
			}
			t.Logf("%s: %d", name, asked)
		})
	}
}
