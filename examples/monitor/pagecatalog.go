package main

import (
	"strings"
	"time"

	"github.com/quicway/quicway/monitor"
)

// ageByCost is how many times longer a copy of all connections is used than it takes to make:
// with many connections this takes a tenth of a processor, however many clients ask.
const ageByCost = 10

// silentAfter is the silence after which a connection is silent, as for [monitor.StateSilent]. The
// clock of the monitor stands still while there are no packets.
const silentAfter = 30 * time.Second

// catalog has a copy of all connections, for all clients. It is not used concurrently.
type catalog struct {
	monitor  *monitor.Monitor
	interval time.Duration // of a client's requests
	all      []*entry
	taken    time.Time // by this host's clock
	cost     time.Duration

	newest   time.Time // the time of the latest packet, by the packets' clock
	newestAt time.Time // when it was first seen, by this host's clock
}

// entry is a connection of the catalog.
type entry struct {
	monitor.Connection
	reason monitor.Reason
	ended  time.Time   // by this host's clock; zero: it is kept
	rtts   []roundTrip // if it has ended
	text   string      // see words; "": not made yet
}

// listing is what the page can show at a time.
type listing struct {
	all     []*entry
	total   int // without those that have ended
	running bool
	now     time.Time // by this host's clock
	clock   time.Time // now by the packets' clock
	keep    time.Duration
}

// look returns the connections, and those that have ended lately.
func (c *catalog) look(now time.Time, h *history) *listing {
	gone, running := h.lately(now)
	if now.Sub(c.taken) >= c.lasts()/2 {
		c.gather(now)
	}
	out := &listing{
		running: running, now: now, clock: c.newest, keep: h.keepEnded,
		all: make([]*entry, 0, len(c.all)+len(gone)),
	}
	if running {
		out.clock = c.newest.Add(now.Sub(c.newestAt))
	}
	over := make(map[uint64]bool, len(gone))
	for i := range gone {
		over[gone[i].Number] = true
		out.all = append(out.all, &entry{Connection: gone[i].Connection, reason: gone[i].reason, ended: gone[i].at, rtts: gone[i].rtts})
	}
	for _, e := range c.all {
		if over[e.Number] {
			continue
		}
		out.total++
		if left, ok := out.left(e); !ok || left > 0 {
			out.all = append(out.all, e)
		}
	}
	return out
}

// lasts returns the time in which a client learns nothing new by asking twice.
func (c *catalog) lasts() time.Duration { return max(c.interval, 2*ageByCost*c.cost) }

// gather copies all connections.
func (c *catalog) gather(now time.Time) {
	began := time.Now()
	c.all = make([]*entry, 0, len(c.all))
	for connection := range c.monitor.Connections() {
		c.all = append(c.all, &entry{Connection: connection})
		if connection.Last.After(c.newest) {
			c.newest, c.newestAt = connection.Last, now
		}
	}
	c.taken, c.cost = now, time.Since(began)
}

// state returns the state of a connection at a time of the packets' clock.
func (e *entry) state(clock time.Time) monitor.State {
	switch {
	case !e.ended.IsZero():
		return monitor.StateEnded
	case e.State != monitor.StateEnded && clock.Sub(e.Last) >= silentAfter:
		return monitor.StateSilent
	}
	return e.State
}

// why says how a connection has ended, or returns "".
func (e *entry) why() string {
	switch {
	case e.reason == monitor.Evicted:
		return "removed to make room"
	case e.Ended != nil:
		return e.Ended.String()
	}
	return e.reason.String()
}

// left returns for how long a connection that has ended is still shown. ok is false if it is
// shown for as long as it is kept.
func (l *listing) left(e *entry) (d time.Duration, ok bool) {
	switch {
	case !l.running || e.state(l.clock) != monitor.StateEnded:
		return 0, false
	case !e.ended.IsZero():
		return l.keep - l.now.Sub(e.ended), true
	}
	return l.keep - l.clock.Sub(e.Ended.Time), true // closed, and still kept
}

// words returns what a search looks for, in lower case: names, versions, addresses, IDs and
// kinds of path changes.
func (e *entry) words() string {
	if e.text != "" {
		return e.text
	}
	all := append([]string{
		e.ServerName, e.Version.String(), e.Confidence.String(), e.JA4, e.OriginalID, e.UID, e.CommunityID,
	}, e.ALPN...)
	all = append(append(all, e.ClientIDs...), e.ServerIDs...)
	for _, p := range e.Paths {
		all = append(all, p.Client.String(), p.Server.String())
	}
	for _, change := range e.PathChanges {
		all = append(all, change.Kind.String())
	}
	e.text = strings.ToLower(strings.Join(all, "\n"))
	return e.text
}

// nameOf returns the name of a connection, or the address of its server.
func nameOf(c *monitor.Connection) string {
	if c.ServerName != "" {
		return cut(c.ServerName, maxName)
	}
	return pathOf(c).Server.String()
}

// pathOf returns the path in use.
func pathOf(c *monitor.Connection) (p monitor.Path) {
	for i := range c.Paths {
		if c.Paths[i].Active {
			return c.Paths[i]
		}
	}
	if len(c.Paths) > 0 {
		return c.Paths[0]
	}
	return p
}

// maxName is the limit of bytes of a name on the page. Names come from strangers. Those in
// the DNS have at most 253.
const maxName = 253

// cut returns the beginning of a text.
func cut(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
