package quota

import (
	"net/netip"

	"github.com/quicway/quicway/internal/wire"
)

const (
	// minInitial is the smallest payload of a UDP datagram with an Initial in it
	// (RFC 9000 §14.1).
	minInitial = 1200
	// minFirstID is the shortest Destination Connection ID that a client may
	// choose for its first Initial (RFC 9000 §7.2).
	minFirstID = 8
)

// filter decides about the datagrams that one socket receives.
type filter struct {
	c     *Controller
	idLen int // length of the server's connection IDs
}

// decide returns whether a datagram may pass, and why. It asks, in this order:
//
//	    question                                      yes
//	 1  from the allow list?                          pass   allowed
//	 2  from the deny list?                           drop   denied
//	 3  beyond the packet rate?                       drop   packet_rate
//	 4  anything but an Initial of version 1 or 2,    pass   other
//	    or one whose header cannot be read?
//	 5  in less than 1200 bytes?                      drop   short_initial
//	 6  no token, and an ID too short for a first     pass   continuing
//	    Initial?
//	 7  of an attempt that is known?                  pass   flow
//	    ... as refused?                               drop   repeated
//	 8  an ID as long as the server's, and from an    pass   continuing
//	    address and port that an attempt was let in
//	    from (with the same token, if any)?
//	 9  beyond the quota of its source?               drop   connections, ...
//	    ... and a refusal may be sent?                pass   connections, ...
//	10  beyond the rate of attempts?                  drop   attempt_rate
//	11  none of these                                 pass   new
//
// The filter reads only the first packet of a datagram. If an Initial has a packet of
// another kind in front of it or behind it, it does not open a connection. In doubt,
// the filter passes a datagram, since QUIC decides in the end. Steps 5 to 11 are about
// attempts only: they never drop packets of an existing connection, nor the Initials
// of a handshake under way, which carry the server's ID (RFC 9000 §7.2) or belong to
// an attempt that was let in.
func (f *filter) decide(from netip.AddrPort, b []byte, now instant) (pass bool, why Reason) {
	c, addr := f.c, f.c.conf.client(from)
	switch {
	case c.lists.match(AllowList, addr):
		return true, PassAllowed
	case c.lists.match(DenyList, addr):
		return false, Denied
	case !c.rates.takePacket(addr, now):
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
	return f.decideInitial(from, addr, &h, now)
}

// decideInitial does steps 7 to 11. client is the address of the source.
func (f *filter) decideInitial(from netip.AddrPort, client netip.Addr, h *wire.Header, now instant) (pass bool, why Reason) {
	c := f.c
	at := c.sources.place(client)
	sh := at.shard
	attempt, endpoint := attemptTag(c.sources.seed, from, h.DstID), endpointTag(c.sources.seed, from, h.Token)
	end := now + instant(c.conf.HandshakeTimeout)
	sh.mu.Lock()
	pass, why = f.findLocked(sh, attempt, endpoint, h, now, end)
	if why != PassNew {
		sh.mu.Unlock()
		return pass, why
	}
	s := c.sources.lookupLocked(&at, now)
	pass, why = f.decideNewLocked(s, now)
	if !pass {
		c.reporter.unlock(sh, c.reporter.keptOutLocked(s, Drop, why, now))
		return false, why
	}
	refuse := why != PassNew // which QUIC does, once
	sh.attempts.put(attempt, end, refuse)
	if !refuse {
		sh.attempts.put(endpoint, end, false)
	}
	sh.refusals.forget(from)
	sh.mu.Unlock()
	return true, why
}

// findLocked does steps 7 and 8: it decides about an attempt that is known, by its own
// tag or by that of its endpoint. It returns PassNew for one that is not. After a
// Retry, a client repeats the token with the ID that the server has chosen (RFC 9000
// §8.1.2). A token continues one attempt only: the filter cannot tell a forged one.
func (f *filter) findLocked(sh *shard, attempt, endpoint uint64, h *wire.Header, now, end instant) (pass bool, why Reason) {
	if refused, known := sh.attempts.find(attempt, now); known {
		if refused {
			return false, Repeated
		}
		return true, PassFlow
	}
	if len(h.DstID) != f.idLen {
		return true, PassNew
	}
	if _, known := sh.attempts.find(endpoint, now); !known {
		return true, PassNew
	}
	if len(h.Token) > 0 {
		sh.attempts.put(endpoint, 0, false)
		sh.attempts.put(attempt, end, false)
	}
	return true, PassContinuing
}

// decideNewLocked does steps 9 to 11.
func (f *filter) decideNewLocked(s *source, now instant) (pass bool, why Reason) {
	if s.exempt() {
		return true, PassNew
	}
	why, full := f.c.admission.fullLocked(s, now)
	// An attempt beyond the quota costs a token as well, as it does in the kernel.
	hasToken := f.c.rates.takeAttemptLocked(s, now)
	switch {
	case full:
		if f.c.conf.Excess == Drop || s == nil || !answers.ok(s.answers, now) {
			return false, why
		}
		answers.take(&s.answers, now)
		return true, why
	case !hasToken:
		return false, AttemptRate
	}
	return true, PassNew
}

// expectAnswer lets in the answer of a peer that this socket dials: its Initials carry
// connection IDs of this side.
func (f *filter) expectAnswer(to netip.AddrPort) {
	c := f.c
	sh, endpoint := c.sources.place(c.conf.client(to)).shard, endpointTag(c.sources.seed, to, nil)
	sh.mu.Lock()
	sh.attempts.put(endpoint, c.clock.now()+instant(c.conf.HandshakeTimeout), false)
	sh.mu.Unlock()
	c.enforcement.enforcer.expect(to, c.conf.HandshakeTimeout)
}
