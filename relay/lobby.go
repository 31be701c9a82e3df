package relay

import (
	"net/netip"
	"slices"
	"sync"
)

// lobby holds control connections that have shown neither a token nor a leg. All that
// they hold is bounded by their number: whoever comes gets in, and if there are too
// many, the one that has been there for longest gives way, of those that have too many
// or most.
type lobby struct {
	max, maxSite, maxSource int

	mu    sync.Mutex // guards the following
	sites map[netip.Prefix][]*client
	total int
	last  uint64 // number
}

// newLobby makes a lobby with room for max connections. A site may have half of it, and
// a source a quarter.
func newLobby(max int) *lobby {
	return &lobby{max: max, maxSite: (max + 1) / 2, maxSource: (max + 3) / 4, sites: make(map[netip.Prefix][]*client)}
}

// enter adds a connection from an address, and returns the one that gives way to it,
// or nil: of the same source, of the same site, or of the site that has most. A nil
// lobby holds nobody, and bounds nothing.
func (l *lobby) enter(c *client, addr netip.Addr) (gone *client) {
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
		gone = l.sites[c.site][i]
	case len(l.sites[c.site]) > l.maxSite:
		gone = l.sites[c.site][0]
	case l.total > l.max:
		gone = l.largestLocked()[0]
	}
	if gone != nil {
		l.removeLocked(gone)
	}
	return gone
}

func (l *lobby) countLocked(c *client) (n int) {
	for _, other := range l.sites[c.site] {
		if other.source == c.source {
			n++
		}
	}
	return n
}

// largestLocked returns the site that has most, of several the one whose first came
// first.
func (l *lobby) largestLocked() (largest []*client) {
	for _, all := range l.sites {
		if len(all) > len(largest) || len(all) == len(largest) && all[0].number < largest[0].number {
			largest = all
		}
	}
	return largest
}

// leave removes a connection, if it is there.
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
