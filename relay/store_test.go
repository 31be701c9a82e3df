package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

// TestSharedStore checks that two relays with the same store do not forward packets into
// sessions of each other, neither by the IDs of a key nor by an Initial's ID.
func TestSharedStore(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		store := cid.NewMemoryStore(nil)
		var labs [2]*lab
		var alice, bob [2]*peer
		for i := range labs {
			labs[i] = &lab{T: t, net: nettest.New(1)}
			labs[i].start(&Config{Store: store})
			defer labs[i].stop()
			alice[i], bob[i] = labs[i].pair()
		}
		initial := []byte("initially")
		register(t, labs[0], bob[0], initial)
		for i := range labs {
			other := bob[1-i].packet(0, "not for here")
			alice[i].send(other)
			bob[i].want()
			labs[i].dropped(DropUnknownID, 1)
			own := bob[i].packet(0, "for here")
			alice[i].send(own)
			bob[i].want(own)
		}
		sh := newShard(labs[1].server, labs[1].server.sockets.all[0])
		if _, ok := sh.lookup(initial); ok {
			t.Error("an ID that was registered at one relay leads to a session of the other")
		}
	})
}

// register gives the accepter's leg an ID that its dialer has drawn.
func register(t *testing.T, l *lab, p *peer, id []byte) {
	t.Helper()
	initial, err := cid.IDFrom(id)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := p.register(p.session, control.Register{Role: p.role, Key: p.key, InitialID: initial}, p.resume); status != 200 {
		t.Fatalf("register %x: status %d", id, status)
	}
	sh := newShard(l.server, l.server.sockets.all[0])
	if _, ok := sh.lookup(id); !ok {
		t.Fatal("the ID is not known where it was registered")
	}
}

// TestStoreIsChecked checks that the relay ignores an association from the store that does
// not agree with its sessions.
func TestStoreIsChecked(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		_, bob := l.pair()
		id := bob.key.ID(cid.Peer, 0)
		right, ok := l.server.conf.Store.Get(id)
		if _, agrees := l.server.sessions.route(&right); !ok || !agrees {
			l.Fatalf("%+v does not lead to bob's leg", right)
		}
		for name, change := range map[string]func(*cid.Association){
			"owner":          func(a *cid.Association) { a.Owner[0]++ },
			"other leg":      func(a *cid.Association) { a.Leg ^= 1 },
			"no leg":         func(a *cid.Association) { a.Leg += 2 },
			"earlier number": func(a *cid.Association) { a.Session -= 1 << slotBits },
			"no slot":        func(a *cid.Association) { a.Session |= 1<<slotBits - 1 },
		} {
			wrong := right
			change(&wrong)
			if _, ok := l.server.sessions.route(&wrong); ok {
				l.Errorf("association with wrong %s was accepted", name)
			}
		}
		bob.end(bob.key)
		time.Sleep(linger + 2*sweepPeriod)
		if _, ok := l.server.sessions.route(&right); ok {
			l.Error("an ID leads to a leg that has ended")
		}
	})
}

// TestNumbersBeginAnywhere checks that the session numbers of two servers differ, so that
// an association that one has put into a store fits no session of the other.
func TestNumbersBeginAnywhere(t *testing.T) {
	seen := make(map[uint64]bool)
	for range 8 {
		ses, err := newTable(&env{}, 1, 1).open(control.SessionID{1}, accountTag{}, uncounted)
		if err != nil {
			t.Fatal(err)
		}
		if seen[ses.num] {
			t.Fatalf("session number %#x twice", ses.num)
		}
		seen[ses.num] = true
	}
}

// blockedStore is a store whose Put blocks for ever from some time on.
type blockedStore struct {
	*cid.MemoryStore
	blocked chan struct{} // nil: Put does not block
}

func (s *blockedStore) Put(id cid.ID, a cid.Association, ttl time.Duration) error {
	if s.blocked != nil {
		<-s.blocked
	}
	return s.MemoryStore.Put(id, a, ttl)
}

// TestBlockedStoreDelaysNoPackets checks that the forwarding loops go on while Put blocks:
// for IDs that are known, also those of the session that waits for the store, and for
// packets from other addresses.
func TestBlockedStoreDelaysNoPackets(t *testing.T) {
	store := &blockedStore{MemoryStore: cid.NewMemoryStore(nil)}
	runLab(t, &Config{Store: store}, func(l *lab) {
		alice, bob := l.pair()
		carol, dave := l.pair()
		store.blocked = make(chan struct{})
		defer close(store.blocked)
		due := bob.packet(cid.Ahead-1, "has the window slid")
		alice.send(due)
		bob.want(due)
		for range 3 {
			for _, p := range []struct{ from, to *peer }{{alice, bob}, {carol, dave}, {bob, alice}, {dave, carol}, {carol, bob}} {
				packet := p.to.packet(cid.Behind-1, "on its way")
				p.from.send(packet)
				p.to.want(packet)
			}
		}
	})
}

// TestHitsAreBounded checks that a hit is counted as an error if the queue is full, and
// that a later packet makes up for it.
func TestHitsAreBounded(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		_, bob := l.pair()
		ses := l.server.sessions.find(bob.session)
		e := &env{conf: l.server.conf, log: l.server.log}
		s := newSlider(newStore(e), 1)
		other := &leg{}
		s.hit(other, 1)
		s.hit(other, 2) // one is queued already
		if n := e.counters.storeErrors.Count(); n != 0 || len(s.hits) != 1 {
			l.Fatalf("%d hits are queued, %d found no room, want 1 and 0", len(s.hits), n)
		}
		s.hit(&ses.legs[control.Accepter], cid.Ahead-1)
		if n := e.counters.storeErrors.Count(); n != 1 {
			l.Fatalf("%d found no room, want 1", n)
		}
		sh := newShard(l.server, l.server.sockets.all[0])
		sh.now = time.Now()
		m := udp.Message{Data: bob.packet(cid.Ahead-1, "again"), Remote: ses.legs[control.Dialer].remote()}
		sh.sort(&m)
		synctest.Wait()
		if _, ok := sh.lookup(bob.key.ID(cid.Peer, cid.Ahead+2).Bytes()); !ok {
			l.Error("the window has not slid")
		}
	})
}
