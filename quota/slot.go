package quota

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/amplify"
)

// Slot is the place of one connection, for the address that it was admitted
// from.
type Slot struct {
	c      *Controller
	shard  *shard
	source *source // nil: not remembered
	remote netip.AddrPort
	exempt bool          // no limit holds for it
	peer   *amplify.Peer // its address, and wherever it moves; nil: not a transport's

	// Guarded by the shard's lock.
	stage      stage
	released   bool
	ended      bool // it must not live on
	close      func()
	timer      *time.Timer
	requests   bucket
	prev, next *Slot
}

// Remote returns the address that the connection was admitted from.
func (s *Slot) Remote() netip.AddrPort { return s.remote }

// Established says that the handshake is complete, which shows that the address
// is the peer's. A half-open slot becomes that of a connection then. Returns false
// if there is no room for it any more, or it has been ended meanwhile
// ([Controller.End]): the caller must close the connection then.
func (s *Slot) Established() bool {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return s.establishLocked()
}

// certain says whether the slot stays when the handshake is complete.
func (s *Slot) certain() bool {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return s.stage == stageLive || s.exempt
}

func (s *Slot) establishLocked() bool {
	if s.released || s.ended {
		return false
	}
	if s.stage == stageLive {
		return true
	}
	s.stopLocked()
	now := s.c.now()
	if !s.c.promoteLocked(s.source, s.stage, s.exempt, now) {
		s.ended = true
		return false
	}
	s.stage = stageLive
	return true
}

// promoteLocked makes a half-open attempt of a source a connection, if it may
// have another. Its rate is charged, but does not decide any more.
func (c *Controller) promoteLocked(s *source, st stage, exempt bool, now instant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := c.total.mayPromote(st) && s.levels(func(l *level) bool { return l.mayPromote(st) })
	if !room && !exempt {
		c.counters.attempt(Connections)
		return false
	}
	s.levels(func(l *level) bool {
		l.promote(st, now)
		return true
	})
	c.total.promote(st, now)
	return true
}

// Release gives the slot back. It may be called more than once.
func (s *Slot) Release() {
	s.shard.mu.Lock()
	if s.released {
		s.shard.mu.Unlock()
		return
	}
	s.released = true
	s.close = nil
	s.stopLocked()
	s.unlinkLocked()
	s.source.levels(func(l *level) bool {
		l.leave(s.stage)
		return true
	})
	s.c.mu.Lock()
	s.c.total.leave(s.stage)
	s.c.mu.Unlock()
	lift := s.c.liftLocked(s.source)
	s.shard.mu.Unlock()
	if lift {
		s.c.turnAway(s.remote.Addr())
	}
}

// OnEnd has f called, on a goroutine of its own, if the slot is ended by
// [Controller.End], by a list, or because there is no room for it when its
// handshake has timed out unnoticed. If that has happened it is called now. The
// owner of the slot then ends what it is for, and releases the slot.
func (s *Slot) OnEnd(f func()) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.ended {
		go f()
		return
	}
	s.close = f
}

// endLocked ends it and returns whether that is news.
func (s *Slot) endLocked() bool {
	if s.ended {
		return false
	}
	s.ended = true
	if s.close != nil {
		go s.close()
	}
	return true
}

// expire counts the slot as a connection's after a while, when a handshake that
// failed would have released it: for whoever does not say Established.
func (s *Slot) expire(after time.Duration) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.released || s.stage == stageLive {
		return
	}
	s.timer = time.AfterFunc(after, func() {
		s.shard.mu.Lock()
		defer s.shard.mu.Unlock()
		if s.released || s.ended {
			return
		}
		if !s.establishLocked() && s.close != nil {
			go s.close()
		}
	})
}

func (s *Slot) stopLocked() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// linkLocked puts the slot into its shard's list.
func (s *Slot) linkLocked() {
	s.next = s.shard.slots
	if s.next != nil {
		s.next.prev = s
	}
	s.shard.slots = s
}

func (s *Slot) unlinkLocked() {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		s.shard.slots = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

// End ends the connections that were admitted from a prefix, and those that are
// still in their handshake, and returns how many. It does not keep others from
// coming: see [Controller.Deny].
func (c *Controller) End(prefix netip.Prefix) int {
	prefix, err := listPrefix(prefix)
	if err != nil {
		return 0
	}
	return c.end(prefix.Contains)
}

// end ends the connections of addresses.
func (c *Controller) end(of func(netip.Addr) bool) (ended int) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for slot := sh.slots; slot != nil; slot = slot.next {
			if of(slot.remote.Addr()) && slot.endLocked() {
				ended++
			}
		}
		sh.mu.Unlock()
	}
	return ended
}
