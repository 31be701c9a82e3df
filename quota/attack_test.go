package quota

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/quotatest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// The tests in this file attack a server of quic-go on a simulated network.

const attacker = "203.0.113.66"

// garbage returns the first Initial of an attempt, with invalid content.
func garbage() []byte {
	d := quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}
	b := d.Build()
	rand.Read(b[6:18])
	return b
}

// storm sends packets at an interval until stop is called.
func (l *lab) storm(every time.Duration, next func(i int) (from string, data []byte)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			from, data := next(i)
			l.net.Inject(nettest.Packet{From: addr(from), To: addr(serverAddr), Data: data})
			time.Sleep(every)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// attackConf returns a configuration with a small quota.
func attackConf(excess Action) *Config {
	return &Config{Excess: excess, Source: Limits{Connections: 5, HalfOpen: 5, ConnectionRate: -1, AttemptRate: 200}}
}

// bothAnswers runs a test with both values of Excess.
func bothAnswers(t *testing.T, test func(t *testing.T, conf *Config)) {
	for _, excess := range []Action{Refuse, Drop} {
		t.Run(excess.String(), func(t *testing.T) { test(t, attackConf(excess)) })
	}
}

// TestParallelDials checks the attack of the eQUIC paper: one source dials a hundred
// connections at the same time. It gets five, good clients are served, and in the end all
// its slots are free.
func TestParallelDials(t *testing.T) {
	bothAnswers(t, func(t *testing.T, conf *Config) {
		runLab(t, conf, func(l *lab) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			var clients []*client
			held := 0
			for range 100 {
				c := l.client(attacker)
				clients = append(clients, c)
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
					defer cancel()
					if conn, err := c.dial(ctx); err == nil {
						if _, err := get(ctx, conn); err == nil {
							mu.Lock()
							held++
							mu.Unlock()
						}
					}
				})
			}
			l.wantServed(20)
			wg.Wait()
			if got, served := l.mostOf(attacker), l.servedOf(attacker); held != 5 || got != 5 || served != 5 {
				t.Errorf("the attacker has %d connections, %d of them served, %d at once, want 5", held, served, got)
			}
			closeAll(clients)
			time.Sleep(time.Minute)
			wantLive(t, l.c, 0, 0)
			if err := l.visit(attacker); err != nil {
				t.Errorf("after the attack: %v", err)
			}
		})
	})
}

// TestDialRetry checks a source that has all its connections and dials on: its connections
// stay alive, and when it closes one it can open another at once.
func TestDialRetry(t *testing.T) {
	bothAnswers(t, func(t *testing.T, conf *Config) {
		runLab(t, conf, func(l *lab) {
			held, clients := l.hold(attacker, 5)
			if len(held) != 5 {
				t.Fatalf("%d connections, want 5", len(held))
			}
			for range 20 {
				c := l.client(attacker)
				ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
				_, err := c.dial(ctx)
				cancel()
				c.close()
				var refused *quic.TransportError
				switch {
				case err == nil:
					t.Fatal("a connection beyond the quota")
				case conf.Excess == Refuse && (!errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused):
					t.Errorf("got %v, want CONNECTION_REFUSED", err)
				case conf.Excess == Drop && !errors.Is(err, context.DeadlineExceeded):
					t.Errorf("got %v, want no answer", err)
				}
			}
			l.wantServed(10)
			for i, conn := range held {
				if resp, err := get(context.Background(), conn); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("connection %d from before the attack: %v", i, err)
				}
			}
			held[0].CloseWithError(0, "")
			time.Sleep(100 * time.Millisecond)
			if err := l.visit(attacker); err != nil {
				t.Errorf("with room again: %v", err)
			}
			if got := l.mostOf(attacker); got != 5 {
				t.Errorf("%d connections at once, want 5", got)
			}
			closeAll(clients)
		})
	})
}

// TestGarbageInitials checks that a flood of garbage takes only half-open slots, and that
// these are released.
func TestGarbageInitials(t *testing.T) {
	bothAnswers(t, func(t *testing.T, conf *Config) {
		runLab(t, conf, func(l *lab) {
			stop := l.storm(time.Millisecond/2, func(i int) (string, []byte) {
				return fmt.Sprintf("%s:%d", attacker, 1024+i%60000), garbage()
			})
			l.wantServed(50)
			s := l.c.Stats()
			stop()
			if s.HalfOpen > 5 || s.Connections > 1 || s.Dropped[AttemptRate] == 0 || s.Retried == 0 {
				t.Errorf("under the flood: %+v", s)
			}
			time.Sleep(11 * time.Second)
			wantLive(t, l.c, 0, 0)
		})
	})
}

// TestForgedVictim checks that Initials with a victim's address do not lock the victim out,
// though its pool of half-open attempts is full.
func TestForgedVictim(t *testing.T) {
	const victim = "198.51.100.99"
	bothAnswers(t, func(t *testing.T, conf *Config) {
		runLab(t, conf, func(l *lab) {
			stop := l.storm(10*time.Millisecond, func(i int) (string, []byte) {
				return fmt.Sprintf("%s:%d", victim, 20000+i%40000), garbage()
			})
			time.Sleep(2 * time.Second)
			if s := l.c.Stats(); s.HalfOpen == 0 || s.Retried == 0 {
				t.Errorf("the attack does nothing: %+v", s)
			}
			held, clients := l.hold(victim, 5)
			if len(held) != 5 {
				t.Errorf("the victim has %d connections, want 5", len(held))
			}
			closeAll(clients)
			stop()
			time.Sleep(time.Minute)
			wantLive(t, l.c, 0, 0)
		})
	})
}

// TestForgedFloodKeepsConnections checks that existing connections of a victim stay alive
// when forged attempts with its address exceed the rate of attempts.
func TestForgedFloodKeepsConnections(t *testing.T) {
	const victim = "198.51.100.99"
	bothAnswers(t, func(t *testing.T, conf *Config) {
		runLab(t, conf, func(l *lab) {
			held, clients := l.hold(victim, 2)
			var conns []*http3.ClientConn
			for _, conn := range held {
				conns = append(conns, (&http3.Transport{}).NewClientConn(conn))
			}
			stop := l.storm(time.Millisecond/2, func(i int) (string, []byte) {
				return fmt.Sprintf("%s:%d", victim, 20000+i%40000), garbage()
			})
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				for i, conn := range conns {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					if resp, err := getOn(ctx, conn); err != nil || resp.StatusCode != http.StatusOK {
						t.Errorf("connection %d: %v", i, err)
					}
					cancel()
				}
			}
			if s := l.c.Stats(); s.Dropped[AttemptRate] == 0 {
				t.Errorf("the flood is not beyond the rate: %+v", s)
			}
			stop()
			closeAll(clients)
		})
	})
}

// TestForgedSources checks a flood in which every packet has another source: new clients
// get a Retry, and are served.
func TestForgedSources(t *testing.T) {
	conf := attackConf(Refuse)
	conf.Total.HalfOpen = 20
	conf.MaxSources = 512
	runLab(t, conf, func(l *lab) {
		stop := l.storm(time.Millisecond, func(i int) (string, []byte) {
			return fmt.Sprintf("10.%d.%d.%d:1000", i>>16&255, i>>8&255, i&255), garbage()
		})
		l.wantServed(30)
		s := l.c.Stats()
		stop()
		if s.HalfOpen > 20 || s.Retried < 100 || s.Sources > 512 {
			t.Errorf("under the flood: %+v", s)
		}
	})
}

// TestPacketFlood checks that others are served during a flood on an existing connection.
func TestPacketFlood(t *testing.T) {
	conf := attackConf(Refuse)
	conf.Source.PacketRate, conf.Source.PacketBurst = 500, 500
	runLab(t, conf, func(l *lab) {
		held, clients := l.hold(attacker, 1)
		from := held[0].LocalAddr().String()
		junk := make([]byte, 1000)
		junk[0] = 0x40
		stop := l.storm(200*time.Microsecond, func(int) (string, []byte) { return from, junk })
		l.wantServed(20)
		s := l.c.Stats()
		stop()
		if passed, dropped := s.Passed[PassOther], s.Dropped[PacketRate]; dropped < passed {
			t.Errorf("%d packets passed and %d were dropped", passed, dropped)
		}
		closeAll(clients)
	})
}

// dropAll drops all packets of a source that has used up its quota, as eQUIC does.
type dropAll struct {
	net.PacketConn
	lab *lab
	max int
}

func (d *dropAll) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := d.PacketConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		d.lab.mu.Lock()
		over := d.lab.live[d.lab.c.Source(udp.AddrPort(from).Addr())] >= d.max
		d.lab.mu.Unlock()
		if !over {
			return n, from, nil
		}
	}
}

// TestDroppingAllOfSource checks for comparison that dropping all packets of a source
// breaks the connections that it has.
func TestDroppingAllOfSource(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		l := newLab(t, nil, func(l *lab, conn net.PacketConn) net.PacketConn { return &dropAll{conn, l, 5} })
		defer l.close()
		held, clients := l.hold(attacker, 5)
		time.Sleep(time.Minute)
		alive := 0
		for _, conn := range held {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if _, err := get(ctx, conn); err == nil {
				alive++
			}
			cancel()
		}
		if alive > 0 {
			t.Errorf("%d connections live though all their packets are dropped: this is no comparison", alive)
		}
		closeAll(clients)
	})
}
