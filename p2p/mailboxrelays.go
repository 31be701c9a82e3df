package p2p

import (
	"errors"
	"slices"
	"time"
)

// collectPause is the pause before a relay is asked for offers again after an error, while
// another one works.
const collectPause = 5 * time.Second

// mailboxes returns the relays at whose mailboxes this endpoint waits: the first ones in the
// order, but of those that other relays have named only such that answer. With more than
// mailboxRelays configured relays these are those of meeting, and the first one.
func (s *relayList) mailboxes() []Relay {
	if !s.hasSeveral() {
		return []Relay{s.endpoint.conf.onlyRelay()}
	}
	order := s.order()
	var relays []Relay
	if meet := s.meeting(s.endpoint.ID(), order); meet != nil {
		relays = append(meet, order[0].Relay)
		if slices.ContainsFunc(meet, order[0].Relay.same) {
			relays = meet
		}
	}
	for _, st := range order {
		if slices.ContainsFunc(relays, st.Relay.same) {
			continue
		}
		if answers := st.Err == nil && st.RTT > 0; len(relays) < mailboxRelays && (answers || s.isOwn(st.Relay)) {
			relays = append(relays, st.Relay)
		}
	}
	return relays
}

// isMailbox says whether a relay is one of mailboxes.
func (s *relayList) isMailbox(r Relay) bool {
	return slices.ContainsFunc(s.mailboxes(), r.same)
}

// paceOf returns the pace at which a relay may be asked.
func (m *mailbox) paceOf(r Relay) *pace {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.paces[r.key()]
	if p == nil {
		p = new(pace)
		if len(m.paces) >= 4*maxRelays { // lists of relays that change all the time
			clear(m.paces)
		}
		m.paces[r.key()] = p
	}
	return p
}

// collector takes offers from several mailboxes. Used only by the collect goroutine.
type collector struct {
	mailbox *mailbox
	running map[relayKey]bool
	failed  map[relayKey]error     // why relays do not work
	again   map[relayKey]time.Time // when they are asked again
	done    chan collected
}

// collected is how taking offers from a relay has ended.
type collected struct {
	relay relayKey
	err   error
}

// collectAll takes offers from all mailboxes, as long as somebody waits. Those who wait are
// told if none of the relays can be used, or if another endpoint takes the offers.
func (m *mailbox) collectAll() {
	c := &collector{
		mailbox: m,
		running: make(map[relayKey]bool),
		failed:  make(map[relayKey]error),
		again:   make(map[relayKey]time.Time),
		done:    make(chan collected),
	}
	for {
		if m.hasWaiters() && m.endpoint.ctx.Err() == nil {
			c.start(time.Now())
		} else if len(c.running) == 0 {
			return
		}
		var again <-chan time.Time
		if m.endpoint.list.hasSeveral() {
			again = time.After(collectPause)
		}
		select {
		case r := <-c.done:
			c.ended(r)
		case <-m.look:
		case <-again:
		}
	}
}

// start asks the relays that are not being asked.
func (c *collector) start(now time.Time) {
	for _, r := range c.mailbox.endpoint.list.mailboxes() {
		k := r.key()
		if c.running[k] || c.again[k].After(now) {
			continue
		}
		c.running[k] = true
		delete(c.failed, k)
		go func() { c.done <- collected{k, c.mailbox.collectFrom(r)} }()
	}
}

// ended takes note that a relay is not asked any more.
func (c *collector) ended(r collected) {
	delete(c.running, r.relay)
	if r.err == nil {
		return
	}
	c.failed[r.relay], c.again[r.relay] = r.err, time.Now().Add(collectPause)
	err := r.err
	if !errors.Is(err, ErrIdentityInUse) {
		var errs []error
		for _, m := range c.mailbox.endpoint.list.mailboxes() {
			failed := c.failed[m.key()]
			if failed == nil {
				return // another relay may work
			}
			errs = append(errs, failed)
		}
		if err = errors.Join(errs...); len(errs) == 1 {
			err = errs[0]
		}
	}
	c.mailbox.fail(err)
	clear(c.failed)
	clear(c.again)
}
