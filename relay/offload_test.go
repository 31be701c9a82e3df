package relay

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
)

// fakeOffload is an offload that pretends to have forwarded packets, and records its
// routes.
type fakeOffload struct {
	noOffload
	packets atomic.Uint64 // to each leg
	late    atomic.Uint64 // bytes that are not counted yet
	routes  map[cid.ID]cid.Association
	due     [2]uint64        // of each leg of the last session
	far     int              // how many routes were far from what was due, when that was set
	deleted func(num uint64) // called when a session is deleted; nil: nothing

	reported []datapath.Event
	void     bool // the events are about an earlier session
}

func (o *fakeOffload) idsPerLeg() uint64 { return kernelIDs }

func (o *fakeOffload) traffic(uint64) [2]datapath.Traffic {
	n := o.packets.Load()
	one := datapath.Traffic{Packets: n, Bytes: 100*n - o.late.Load()}
	return [2]datapath.Traffic{one, one}
}

func (o *fakeOffload) events(context.Context) iter.Seq[datapath.Event] {
	return slices.Values(o.reported)
}

func (o *fakeOffload) current(datapath.Event) bool { return !o.void }

func (o *fakeOffload) setDue(_ uint64, role control.Role, counter uint64) {
	o.due[role] = counter
	for _, a := range o.routes {
		if a.Leg == uint8(role) && (a.Counter >= counter+64 || a.Counter+64 <= counter) {
			o.far++
		}
	}
}

func (o *fakeOffload) deleteSession(num uint64) {
	if o.deleted != nil {
		o.deleted(num)
	}
}

func (o *fakeOffload) putRoute(id cid.ID, a cid.Association) { o.routes[id] = a }
func (o *fakeOffload) deleteRoute(id cid.ID, a cid.Association) {
	if o.routes[id] == a {
		delete(o.routes, id)
	}
}

// runOffload is runLab with a fakeOffload.
func runOffload(t *testing.T, conf *Config, test func(*lab, *fakeOffload)) {
	runLab(t, conf, func(l *lab) {
		o := &fakeOffload{routes: make(map[cid.ID]cid.Association)}
		l.stop()
		l.offload = o
		l.start(conf)
		test(l, o)
	})
}

// TestOffloadedTrafficKeepsLegs checks that packets that the offload has forwarded are
// counted, and keep legs alive without a refresh, until there are no more packets.
func TestOffloadedTrafficKeepsLegs(t *testing.T) {
	runOffload(t, &Config{TTL: 90 * time.Second}, func(l *lab, o *fakeOffload) {
		l.pair()
		for range 10 {
			time.Sleep(time.Minute)
			o.packets.Add(5)
		}
		time.Sleep(2 * sweepPeriod)
		if s := l.server.Stats(); s.Legs != 2 || s.OffloadedPackets != 100 || s.OffloadedBytes != 10_000 {
			l.Errorf("%d legs, %d packets, %d bytes, want 2, 100 and 10000", s.Legs, s.OffloadedPackets, s.OffloadedBytes)
		}
		time.Sleep(2 * time.Minute)
		if s := l.server.Stats(); s.Legs != 0 {
			l.Errorf("%d legs are left", s.Legs)
		}
		if len(o.routes) != 0 {
			l.Errorf("%d routes are left", len(o.routes))
		}
	})
}

// TestOffloadEndsFirst checks that the counters stay when a program is closed before the
// server, and reports zero.
func TestOffloadEndsFirst(t *testing.T) {
	runOffload(t, &Config{TTL: 90 * time.Second}, func(l *lab, o *fakeOffload) {
		l.pair()
		o.packets.Store(50)
		time.Sleep(2 * sweepPeriod)
		o.packets.Store(0)
		time.Sleep(2 * sweepPeriod)
		if s := l.server.Stats(); s.OffloadedPackets != 100 || s.OffloadedBytes != 10_000 {
			l.Errorf("%d packets, %d bytes, want 100 and 10000", s.OffloadedPackets, s.OffloadedBytes)
		}
	})
}

// TestOffloadedBytesComeLater checks that bytes are counted that the offload has counted only after their
// packets.
func TestOffloadedBytesComeLater(t *testing.T) {
	runOffload(t, &Config{TTL: 90 * time.Second}, func(l *lab, o *fakeOffload) {
		l.pair()
		o.packets.Store(50)
		o.late.Store(70)
		time.Sleep(2 * sweepPeriod)
		o.late.Store(0)
		time.Sleep(2 * sweepPeriod)
		if s := l.server.Stats(); s.OffloadedPackets != 100 || s.OffloadedBytes != 10_000 {
			l.Errorf("%d packets, %d bytes, want 100 and 10000", s.OffloadedPackets, s.OffloadedBytes)
		}
	})
}

// TestVoidEvents checks that an event that has waited while another session got the place of its own moves no
// window.
func TestVoidEvents(t *testing.T) {
	for _, void := range []bool{false, true} {
		runOffload(t, nil, func(l *lab, o *fakeOffload) {
			_, bob := l.pair()
			ses := l.server.sessions.find(bob.session)
			leg := &ses.legs[control.Accepter]
			before := leg.window
			e := datapath.Event{Session: uint32(ses.num & (1<<slotBits - 1)), Leg: uint8(control.Accepter), Counter: 14}
			o.void, o.reported = void, []datapath.Event{e}
			l.server.sessions.followEvents(t.Context())
			if moved := leg.window != before; moved == void {
				l.Errorf("window %+v after an event, void: %v; it was %+v", leg.window, void, before)
			}
		})
	}
}

// TestOffloadKnowsTheIDsInUse checks that the offload knows the IDs around the one in use.
// One late packet does not move its window back, but many do.
func TestOffloadKnowsTheIDsInUse(t *testing.T) {
	runOffload(t, nil, func(l *lab, o *fakeOffload) {
		alice, bob := l.pair()
		knows := func(first uint64) {
			l.Helper()
			for counter := range uint64(30) {
				_, ok := o.routes[bob.key.ID(cid.Peer, counter)]
				if want := counter >= first && counter < first+kernelIDs; ok != want {
					l.Errorf("knows ID %d: %v, want those from %d on", counter, ok, first)
				}
			}
		}
		send := func(counter uint64, times int) {
			for range times {
				alice.send(bob.packet(counter, "x"))
			}
			bob.arrived()
		}
		knows(0)
		send(7, 1)
		knows(6)
		send(3, lateBudget/2)
		knows(6)
		send(3, lateBudget+1)
		knows(2)
		ses := l.server.sessions.find(bob.session)
		ses.legs[control.Accepter].slideLow(datapath.Event{Counter: 9})
		knows(8)
		ses.legs[control.Accepter].slideLow(datapath.Event{Counter: 1 << 15}) // not in the window
		knows(8)
	})
}

// TestOffloadKnowsWhatIsNear checks that the offload, which knows only the low bits of counters, knows no ID
// far away from the one that is due, also if the client goes far ahead without a packet, and if another
// client takes its place.
func TestOffloadKnowsWhatIsNear(t *testing.T) {
	runOffload(t, nil, func(l *lab, o *fakeOffload) {
		_, bob := l.pair()
		leg := &l.server.sessions.find(bob.session).legs[control.Accepter]
		near := func(first uint64) {
			l.Helper()
			due := o.due[control.Accepter]
			if known := leg.inOffload.counters; known.Lo != first || due < known.Lo || due > known.Lo+2 || leg.due.Load() != due {
				l.Errorf("knows the counters %v, and %d is due, in the loop %d; want the counters from %d", known, due, leg.due.Load(), first)
			}
		}
		near(0)
		for _, next := range []uint64{50, 100, 1000} {
			leg.session.mu.Lock()
			leg.offloadNextLocked(next)
			leg.session.mu.Unlock()
			near(next - kernelIDs + 1)
		}
		if o.far > 0 {
			l.Errorf("%d times an ID was known that could be taken for one that is due", o.far)
		}
		leg.session.mu.Lock()
		leg.leaveOffloadLocked()
		leg.offloadNextLocked(0)
		leg.session.mu.Unlock()
		near(0)
	})
}

// TestOffloadForgetsFirst checks that the offload forgets a session before another one can have its
// place, and that a session that is over then leaves what is in its place alone.
func TestOffloadForgetsFirst(t *testing.T) {
	runOffload(t, nil, func(l *lab, o *fakeOffload) {
		_, bob := l.pair()
		ses := l.server.sessions.find(bob.session)
		deletions := 0
		o.deleted = func(num uint64) {
			if deletions++; num != ses.num || l.server.sessions.at(num) != ses || len(o.routes) != 0 {
				l.Errorf("with %d routes left, session %d is deleted when %v has its place", len(o.routes), num, l.server.sessions.at(num))
			}
		}
		ses.end()
		before := l.server.Stats().OffloadedPackets
		o.packets.Add(5) // of the next session
		ses.sweep(time.Now())
		ses.withdraw(false)
		if n := l.server.Stats().OffloadedPackets - before; n != 0 || deletions != 1 {
			l.Errorf("%d packets of another session were counted, and %d sessions deleted, want 0 and 1", n, deletions)
		}
	})
}
