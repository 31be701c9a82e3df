package monitor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
)

// crowd is a number of connections between the same two hosts, some of which migrate.
type crowd struct {
	*scene
	members []*member
	moved   map[netip.AddrPort]netip.AddrPort // from the client's new endpoint to its first one
	wait    sync.WaitGroup
	talks   atomic.Uint64
}

// member is a connection of a crowd.
type member struct {
	conn   *quic.Conn
	client netip.AddrPort
	socket *nettest.Conn
	quit   atomic.Bool
	close  []func()
}

// crowdAddr returns an endpoint of the crowd's client.
func crowdAddr(port int) string { return fmt.Sprintf("192.0.2.1:%d", port) }

// join opens n connections.
func (c *crowd) join(n int) {
	c.t.Helper()
	for i := range n {
		m := &member{socket: c.network.Listen(crowdAddr(10_000 + i))}
		m.client = netip.MustParseAddrPort(crowdAddr(10_000 + i))
		transport := &quic.Transport{Conn: m.socket, ConnectionIDLength: 4}
		m.close = append(m.close, func() { transport.Close() })
		server := nettest.UDPAddr(netip.MustParseAddrPort(serverAddr))
		var err error
		m.conn, err = transport.Dial(c.t.Context(), server, c.tls, &quic.Config{DisablePathMTUDiscovery: true, MaxIdleTimeout: time.Minute})
		if err != nil {
			c.t.Fatal(err)
		}
		c.members = append(c.members, m)
	}
}

// talk lets a member exchange data until a time, or until it quits, with random pauses.
func (c *crowd) talk(m *member, until time.Time) {
	rng := rand.New(rand.NewPCG(7, c.talks.Add(1))) // its own: a member may talk twice at a time
	pause := time.Duration(20 + rng.IntN(200))
	c.wait.Go(func() {
		for time.Now().Before(until) && !m.quit.Load() {
			c.exchange(m.conn, 100+rng.IntN(3000))
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(pause*time.Millisecond)))
		}
	})
}

// migrate lets a member move to another port. It does not wait.
func (c *crowd) migrate(m *member, port int, talk func()) {
	c.moved[netip.MustParseAddrPort(crowdAddr(port))] = m.client
	c.wait.Go(func() {
		transport := &quic.Transport{Conn: c.network.Listen(crowdAddr(port)), ConnectionIDLength: 4}
		m.close = append(m.close, func() { transport.Close(); transport.Conn.Close() })
		path, err := m.conn.AddPath(transport)
		if err == nil {
			err = path.Probe(context.Background())
		}
		if err == nil {
			err = path.Switch()
		}
		if err != nil {
			c.t.Error(err)
		}
		if talk != nil {
			talk()
		}
	})
}

// leave closes all connections.
func (c *crowd) leave() {
	c.wait.Wait()
	for _, m := range c.members {
		m.conn.CloseWithError(0, "")
	}
	time.Sleep(time.Second) // on the fake clock, until both sides have closed
	synctest.Wait()
	for _, m := range c.members {
		for _, f := range m.close {
			f()
		}
		m.socket.Close()
	}
}

// verdicts counts the moves of a crowd by what the tracker has made of them.
type verdicts struct{ right, oneOf, wrong, unknown int }

// judge compares what the tracker has found with what has happened.
func (c *crowd) judge(t *testing.T, tracker *Tracker) (v verdicts) {
	all := connections(tracker)
	first := map[uint64]netip.AddrPort{} // of each connection: its client's first endpoint
	for i := range all {
		first[all[i].Number] = all[i].Paths[0].Client
	}
	for at, client := range c.moved {
		v.add(t, all, first, at, client)
	}
	return v
}

// add judges the move of the connection of a client to an endpoint.
func (v *verdicts) add(t *testing.T, all []Connection, first map[uint64]netip.AddrPort, at, client netip.AddrPort) {
	for i := range all {
		got := &all[i]
		if !slices.ContainsFunc(got.Paths, func(p Path) bool { return p.Client == at }) {
			continue
		}
		last := PathChange{Confidence: High}
		if n := len(got.PathChanges); n > 0 {
			last = got.PathChanges[n-1]
		}
		switch {
		case first[got.Number] == client:
			v.right++
		case got.Confidence != MidFlow:
			v.wrong++
			t.Errorf("%v has moved to %v, which is taken for a path of %v: %+v", client, at, first[got.Number], got.PathChanges)
		case last.Confidence != Low || last.CandidatesOmitted == 0 && !slices.ContainsFunc(last.Candidates, func(n uint64) bool { return first[n] == client }):
			v.wrong++
			t.Errorf("%v has moved to %v, and is not among the candidates: %+v", client, at, last)
		default:
			v.oneOf++
		}
		return
	}
	v.unknown++
}

// TestCrowd checks which connections of two hosts are found to have moved, among many. None may
// be taken for another one. Whose a path is cannot be known if several connections make a pause
// when it comes into use.
func TestCrowd(t *testing.T) {
	if testing.Short() || nettest.RaceDetector {
		t.Skip("it takes long, above all with the race detector, and has no concurrency of the monitor's own")
	}
	const length = 14 * time.Second
	every := func(movers, stride int, pause time.Duration) func(*crowd, time.Time) {
		return func(c *crowd, _ time.Time) {
			for i := range movers {
				c.migrate(c.members[len(c.members)-1-i*stride], 30_000+i, nil)
				time.Sleep(pause)
			}
		}
	}
	t.Logf("%-45s %6s %8s %6s %8s", "", "right", "one of N", "wrong", "unknown")
	for _, test := range []struct {
		name    string
		members int
		idle    int // members that are silent
		act     func(c *crowd, end time.Time)
		right   int // at least; how many more depends on their pauses
	}{
		{"20 of 200, one after another", 200, 0, every(20, 7, 300*time.Millisecond), 0},
		{"20 of 200, the others silent", 200, 180, every(20, 1, 300*time.Millisecond), 0},
		{"4 of 40, at long intervals", 40, 10, every(4, 7, 2*time.Second), 1},
		{"20 of 100, five at a time", 100, 0, func(c *crowd, end time.Time) {
			for range 4 {
				first := len(c.moved)
				for i := range 5 {
					c.migrate(c.members[len(c.members)-1-(first+i)*5], 30_000+first+i, nil)
				}
				time.Sleep(time.Second)
			}
		}, 0},
		{"20 of 40, also silent ones", 40, 20, func(c *crowd, end time.Time) {
			for i := range 20 {
				m := c.members[i*2]
				c.migrate(m, 30_000+i, func() { c.talk(m, end) })
				time.Sleep(time.Duration(i%2) * 400 * time.Millisecond)
			}
		}, 0},
		{"10 of 30, others end", 30, 0, func(c *crowd, end time.Time) {
			for i := range 10 {
				c.members[20+i].quit.Store(true)
				c.migrate(c.members[i], 30_000+i, nil)
				time.Sleep(500 * time.Millisecond)
			}
		}, 0},
		{"20 of 60, NAT rebindings", 60, 40, func(c *crowd, end time.Time) {
			for i := range 20 {
				m := c.members[40+i]
				c.moved[netip.MustParseAddrPort(crowdAddr(30_000+i))] = m.client
				c.network.Rebind(m.socket, crowdAddr(30_000+i))
				time.Sleep(100 * time.Millisecond)
			}
		}, 20},
	} {
		c := &crowd{moved: map[netip.AddrPort]netip.AddrPort{}}
		all := play(t, nil, false, func(s *scene) {
			c.scene = s
			c.join(test.members)
			end := time.Now().Add(length)
			for _, m := range c.members[test.idle:] {
				c.talk(m, end)
			}
			time.Sleep(2 * time.Second)
			test.act(c, end)
			c.leave()
		})
		tracker := newTracker(t, nil)
		track(tracker, all)
		v := c.judge(t, tracker)
		t.Logf("%-45s %6d %8d %6d %8d", test.name, v.right, v.oneOf, v.wrong, v.unknown)
		if v.right < test.right || v.unknown > 0 {
			t.Errorf("%s: %d of %d moves are known, want %d", test.name, v.right, len(c.moved), test.right)
		}
		bounded(t, tracker)
	}
}
