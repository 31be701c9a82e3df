package relay

import (
	"net/netip"
	"slices"
	"sync"
)

// lobby holds the control connections that have shown nothing yet. All that they hold
// is bounded by their number: whoever comes gets in, and where there are too many,
// the one that has shown nothing for longest gives way.
type lobby struct {
	mu    sync.Mutex // guards the following
	sites map[netip.Prefix][]*client
	total int
}

// enter adds a connection from an address, and returns the one that gives way to it,
// or nil: of the same source, of the same site, or of the site that has most.
func (l *lobby) enter(c *client, addr netip.Addr) (gone *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sites == nil {
		l.sites = make(map[netip.Prefix][]*client)
	}
	c.source, c.site = sourceOf(addr), siteOf(addr)
	l.sites[c.site] = append(l.sites[c.site], c)
	l.total++
	switch {
	case l.countLocked(c) > maxStrangersSource:
		i := slices.IndexFunc(l.sites[c.site], func(o *client) bool { return o.source == c.source })
		gone = l.sites[c.site][i]
	case len(l.sites[c.site]) > maxStrangersSite:
		gone = l.sites[c.site][0]
	case l.total > maxStrangers:
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

func (l *lobby) largestLocked() (largest []*client) {
	for _, all := range l.sites {
		if len(all) > len(largest) {
			largest = all
		}
	}
	return largest
}

// leave removes a connection that has shown something, or is over.
func (l *lobby) leave(c *client) {
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
