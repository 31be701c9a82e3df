package quota

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/amplify"
)

// Slot is the place of one connection in the quota. It counts for the address that
// the connection was admitted from, even after the connection has migrated. All methods
// may be called concurrently.
type Slot struct {
	admission *admission
	shard     *shard
	source    *source // nil: not remembered
	remote    netip.AddrPort
	client    netip.Addr    // of the source: that of remote, unless Config.SourceOf says otherwise
	exempt    bool          // no limit holds for it
	peer      *amplify.Peer // its address, and where it migrates to; nil: not of a transport

	// Guarded by the shard's lock.
	stage      stage
	released   bool
	ended      bool // the connection has to be closed
	onEnd      func()
	timer      *time.Timer
	requests   bucket
	ofRoutes   []bucket // requests on each route that limits connections, by its number
	prev, next *Slot
}

// Remote returns the address that the connection was admitted from, as the server sees it.
func (s *Slot) Remote() netip.AddrPort { return s.remote }

// Established reports to the quota that the handshake is complete, which validates the
// peer's address. A half-open slot becomes that of a live connection. Established
// returns false if there is no room for it any more, or if the slot has been ended
// ([Controller.End]) or released. The caller must then close the connection.
func (s *Slot) Established() bool {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return s.establishLocked()
}

// certain reports whether there is room for the connection when its handshake is
// complete, whatever happens until then.
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
	s.stopTimerLocked()
	if !s.admission.establishLocked(s, s.admission.clock.now()) {
		s.ended = true
		return false
	}
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
	s.onEnd = nil
	s.stopTimerLocked()
	s.unlinkLocked()
	s.admission.leaveLocked(s)
	reporter := s.admission.reporter
	reporter.unlock(s.shard, reporter.enforcement.readmitLocked(s.source))
}

// OnEnd sets a function that is called, on a goroutine of its own, when the slot is
// ended: by [Controller.End], by an [Entry] with End, or because there is no room for
// it when [Config].HandshakeTimeout has passed. If the slot has been ended already, f
// is called now. f closes the connection; the owner still has to call [Slot.Release].
func (s *Slot) OnEnd(f func()) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.ended {
		go f()
		return
	}
	s.onEnd = f
}

// endLocked ends the slot, and reports whether it was not ended before.
func (s *Slot) endLocked() bool {
	if s.ended {
		return false
	}
	s.ended = true
	if s.onEnd != nil {
		go s.onEnd()
	}
	return true
}

// establishAfter establishes the slot after a time in which a handshake that fails
// releases it. It is for owners that do not call Established.
func (s *Slot) establishAfter(timeout time.Duration) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.released || s.stage == stageLive {
		return
	}
	s.timer = time.AfterFunc(timeout, func() {
		s.shard.mu.Lock()
		defer s.shard.mu.Unlock()
		if s.released || s.ended {
			return
		}
		if !s.establishLocked() && s.onEnd != nil {
			go s.onEnd()
		}
	})
}

func (s *Slot) stopTimerLocked() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// linkLocked puts the slot into the list of its shard.
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
