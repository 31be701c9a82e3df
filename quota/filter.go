package quota

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/quicway/quicway/internal/wire"
)

const (
	// minInitial is the smallest payload of a UDP datagram with an Initial
	// in it (RFC 9000 §14.1).
	minInitial = 1200
	// minFirstID is the shortest Destination Connection ID that a client may
	// choose for its first Initial (RFC 9000 §7.2).
	minFirstID = 8
)

// filter judges the datagrams that come to one socket.
type filter struct {
	c     *Controller
	idLen int // of the IDs that the server makes
}

// judge says whether a datagram may pass, and why. It asks, in this order:
//
//	    question                                      yes
//	 1  from the allow list?                          pass   allowed
//	 2  from the deny list?                           drop   denied
//	 3  more packets than it may send?                drop   packet_rate
//	 4  anything but an Initial of version 1 or 2,    pass   other
//	    or one whose header can't be read?
//	 5  in less than 1200 bytes?                      drop   short_initial
//	 6  no token, and an ID too short for a first     pass   continuing
//	    Initial?
//	 7  of an attempt that is known?                  pass   flow
//	    ... as refused?                               drop   repeated
//	 8  no token, an ID as long as the server's, and  pass   continuing
//	    from where an attempt was let in?
//	 9  beyond the quota of its source?               drop   connections, ...
//	    ... and it may be told so?                    pass   connections, ...
//	10  more attempts than it may make?               drop   attempt_rate
//	11  none of these                                 pass   new
//
// Only the first packet of a datagram is looked at: if another kind is in front
// of an Initial, or behind it, it is no first flight. What the filter is not sure
// of passes, since QUIC itself decides at last. Steps 5 to 11 are for attempts at
// new connections: an existing connection is never held to their limits, nor are
// the Initials of a handshake under way, which are those with the server's ID
// (RFC 9000 §7.2) and those of a flow that has been let in.
func (f *filter) judge(from netip.AddrPort, b []byte, now instant) (pass bool, why Reason) {
	c, addr := f.c, from.Addr()
	switch {
	case c.lists.hit(AllowList, addr, c.conf.Now):
		return true, PassAllowed
	case c.lists.hit(DenyList, addr, c.conf.Now):
		return false, Denied
	case !c.takePacket(addr, now):
		return false, PacketRate
	case len(b) == 0 || !wire.IsLong(b[0]):
		return true, PassOther
	}
	h, err := wire.Parse(b, 0)
	switch {
	case err != nil || h.Type != wire.Initial:
		return true, PassOther
	case len(b) < minInitial:
		return false, ShortInitial
	case len(h.Token) == 0 && len(h.DstID) < minFirstID:
		return true, PassContinuing
	}
	return f.judgeInitial(from, &h, now)
}

// judgeInitial takes steps 7 to 11.
func (f *filter) judgeInitial(from netip.AddrPort, h *wire.Header, now instant) (pass bool, why Reason) {
	c := f.c
	sh := c.shardOf(from.Addr())
	flow, origin := c.flowTag(from, h.DstID), c.flowTag(from, nil)
	if len(h.Token) > 0 {
		origin = c.tokenTag(from, h.Token)
	}
	end := now + instant(c.conf.HandshakeTimeout)
	sh.mu.Lock()
	pass, why = f.knownLocked(sh, flow, origin, h, now, end)
	if why != PassNew {
		sh.mu.Unlock()
		return pass, why
	}
	s := c.lookup(sh, from.Addr(), now)
	pass, why = c.newcomerLocked(s, now)
	e, due := c.noteLocked(s, from.Addr(), Drop, why, !pass, now)
	turn := c.turnedAwayLocked(s, why, now)
	switch {
	case why == PassNew:
		sh.flows.put(flow, end, false)
		sh.flows.put(origin, end, false)
		sh.refusals.forget(from)
	case pass: // to be refused, once
		sh.flows.put(flow, end, true)
		sh.refusals.forget(from)
	}
	sh.mu.Unlock()
	if due {
		c.report(e)
	}
	if turn {
		c.turnAway(from.Addr())
	}
	return pass, why
}

// knownLocked says what is known of an attempt, by its flow or where it is from:
// PassNew if nothing. A client repeats the token of a Retry when it has learned the
// server's ID (RFC 9000 §8.1.2): once, since a forged token is as good as any here.
func (f *filter) knownLocked(sh *shard, flow, origin uint64, h *wire.Header, now, end instant) (pass bool, why Reason) {
	if refused, known := sh.flows.find(flow, now); known {
		if refused {
			return false, Repeated
		}
		return true, PassFlow
	}
	if len(h.DstID) != f.idLen {
		return true, PassNew
	}
	if _, known := sh.flows.find(origin, now); !known {
		return true, PassNew
	}
	if len(h.Token) > 0 {
		sh.flows.put(origin, 0, false)
		sh.flows.put(flow, end, false)
	}
	return true, PassContinuing
}

// newcomerLocked says whether a new attempt may reach QUIC. What is beyond its
// quota may too, if it is to be told so.
func (c *Controller) newcomerLocked(s *source, now instant) (pass bool, why Reason) {
	if s != nil && s.limits.exempt {
		return true, PassNew
	}
	if why, full := c.full(s, now); full {
		c.takeAttempt(s, now) // as the kernel does, which cannot tell
		if c.conf.Excess == Drop || s == nil || !answers.ok(s.answer, now) {
			return false, why
		}
		answers.take(&s.answer, now)
		return true, why
	}
	if !c.takeAttempt(s, now) {
		return false, AttemptRate
	}
	return true, PassNew
}

// takeAttempt charges an attempt to all levels if all of them have room for it.
func (c *Controller) takeAttempt(s *source, now instant) bool {
	ok := s.levels(func(l *level) bool { return l.limits.attempt.ok(l.attempt, now) })
	if !ok || !c.attempts.take(c.total.limits.attempt, now) {
		return false
	}
	return s.levels(func(l *level) bool {
		l.limits.attempt.take(&l.attempt, now)
		return true
	})
}

// takePacket charges a packet. It takes a lock only if sources have limits.
func (c *Controller) takePacket(addr netip.Addr, now instant) bool {
	all := c.total.limits.packet
	if !c.limitsPackets && !all.limited() {
		return true
	}
	if l, ok := c.overrides.Lookup(addr); ok && l.exempt {
		return true
	}
	return (!c.limitsPackets || c.takeSourcePacket(addr, now)) && c.packets.take(all, now)
}

// takeSourcePacket charges a packet to its source and site.
func (c *Controller) takeSourcePacket(addr netip.Addr, now instant) bool {
	sh := c.shardOf(addr)
	sh.mu.Lock()
	s := c.lookup(sh, addr, now)
	ok := s.levels(func(l *level) bool { return l.limits.packet.ok(l.packet, now) })
	if ok {
		s.levels(func(l *level) bool {
			l.limits.packet.take(&l.packet, now)
			return true
		})
	}
	e, due := c.noteLocked(s, addr, Drop, PacketRate, !ok, now)
	sh.mu.Unlock()
	if due {
		c.report(e)
	}
	return ok
}

// flowTag names an attempt, or, without an ID, where attempts come from.
func (c *Controller) flowTag(from netip.AddrPort, id []byte) uint64 {
	var b [16 + 2 + 1 + wire.MaxIDLen]byte
	addr := from.Addr().As16()
	n := copy(b[:], addr[:])
	binary.BigEndian.PutUint16(b[n:], from.Port())
	b[n+2] = byte(len(id))
	n += 3 + copy(b[n+3:], id)
	return maphash.Bytes(c.seed, b[:n])
}

// tokenTag names the attempts with a token.
func (c *Controller) tokenTag(from netip.AddrPort, token []byte) uint64 {
	return c.flowTag(from, nil) ^ maphash.Bytes(c.seed, token)
}
