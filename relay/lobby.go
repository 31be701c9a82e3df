package relay

import (
	"net/netip"
	"slices"
	"sync"
)

// lobbies are where control connections are counted that are not authenticated.
type lobbies struct {
	unauthenticated *lobby
	listeners       *lobby // those that wait for offers to their own key
}

// of returns the lobby that a client belongs to, or nil if it belongs to none.
func (l *lobbies) of(c *client) *lobby {
	switch {
	case c.authenticated.Load() || c.over.Load():
		return nil
	case c.listening.Load() > 0:
		return l.listeners
	}
	return l.unauthenticated
}

// lobby bounds the control connections of one kind that are not authenticated. A new
// connection always gets in. If there are too many then, the lobby evicts the oldest
// one of the source or site that has too many, or of the site that has most.
type lobby struct {
	max, maxSite, maxSource int

	mu    sync.Mutex // guards the following
	sites map[netip.Prefix][]*client
	total int
	last  uint64 // the number of the last connection
}

// newLobby makes a lobby with room for max connections. A site may have half of them,
// and a source a quarter.
func newLobby(max int) *lobby {
	site, source := partsOf(max)
	return &lobby{max: max, maxSite: site, maxSource: source, sites: make(map[netip.Prefix][]*client)}
}

// partsOf returns what a site may have of a number, a half, and a source, a quarter. Both are
// rounded up.
func partsOf(max int) (site, source int) {
	site = max - max/2 // not (max+1)/2: there may be no larger number
	return site, site - site/2
}

// enter adds a connection from an address, and returns the connection that is evicted
// for it, or nil. A nil lobby takes every connection and evicts none.
func (l *lobby) enter(c *client, addr netip.Addr) (evicted *client) {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.source, c.site = sourceOf(addr), siteOf(addr)
	l.sites[c.site] = append(l.sites[c.site], c)
	l.total++
	l.last++
	c.number = l.last
	switch {
	case l.countLocked(c) > l.maxSource:
		i := slices.IndexFunc(l.sites[c.site], func(o *client) bool { return o.source == c.source })
		evicted = l.sites[c.site][i]
	case len(l.sites[c.site]) > l.maxSite:
		evicted = l.sites[c.site][0]
	case l.total > l.max:
		evicted = l.largestLocked()[0]
	}
	if evicted != nil {
		l.removeLocked(evicted)
	}
	return evicted
}

// countLocked returns how many connections the source of a connection has.
func (l *lobby) countLocked(c *client) (n int) {
	for _, other := range l.sites[c.site] {
		if other.source == c.source {
			n++
		}
	}
	return n
}

// largestLocked returns the connections of the site that has most. If several have as
// many, it is the site with the oldest connection.
func (l *lobby) largestLocked() (largest []*client) {
	for _, all := range l.sites {
		if len(all) > len(largest) || len(all) == len(largest) && all[0].number < largest[0].number {
			largest = all
		}
	}
	return largest
}

// leave removes a connection, if it is in the lobby. The lobby may be nil.
func (l *lobby) leave(c *client) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(c)
}

func (l *lobby) removeLocked(c *client) {
	all := l.sites[c.site]
	i := slices.Index(all, c)
	if i < 0 {
		return
	}
	l.total--
	if l.sites[c.site] = slices.Delete(all, i, i+1); len(l.sites[c.site]) == 0 {
		delete(l.sites, c.site)
	}
}
