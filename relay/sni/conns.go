package sni

import (
	"container/list"
	"net/netip"
	"sync"
)

// connSet has the connections that exist, and counts them by source.
type connSet struct {
	conf *Config

	mu      sync.Mutex // guards the following, and conn.source and conn.place
	conns   map[*conn]struct{}
	waiting list.List // of *conn whose ClientHello is not complete, the oldest first
	sources map[netip.Prefix]*sourceCount
}

// sourceCount has the numbers of connections of a source.
type sourceCount struct{ all, waiting int }

func newConnSet(conf *Config) *connSet {
	return &connSet{conf: conf, conns: make(map[*conn]struct{}), sources: make(map[netip.Prefix]*sourceCount)}
}

// add adds a connection, and returns the one that has to make room for it, or nil.
func (s *connSet) add(c *conn) (evicted *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	if s.waiting.Len() >= s.conf.MaxWaiting {
		evicted = s.waiting.Front().Value.(*conn)
		s.heardLocked(evicted)
	}
	c.place = s.waiting.PushBack(c)
	return evicted
}

// countFor counts a connection for a source. It reports false and why if the source has
// too many.
func (s *connSet) countFor(c *conn, source netip.Prefix) (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.sources[source]
	switch {
	case n == nil:
		n = &sourceCount{}
		s.sources[source] = n
	case n.all >= s.conf.MaxConnectionsPerSource:
		return SourceFull, false
	case n.waiting >= s.conf.MaxWaitingPerSource:
		return WaitingFull, false
	}
	c.source = source
	n.all++
	if c.place != nil {
		n.waiting++
	}
	return 0, true
}

// heard says that the ClientHello of a connection is complete.
func (s *connSet) heard(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heardLocked(c)
}

func (s *connSet) heardLocked(c *conn) {
	if c.place == nil {
		return
	}
	s.waiting.Remove(c.place)
	c.place = nil
	if n := s.sources[c.source]; n != nil {
		n.waiting--
	}
}

func (s *connSet) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heardLocked(c)
	delete(s.conns, c)
	if n := s.sources[c.source]; n != nil {
		if n.all--; n.all == 0 {
			delete(s.sources, c.source)
		}
	}
}

// all returns the connections that exist.
func (s *connSet) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// count returns the numbers of connections, and of those whose ClientHello is not
// complete.
func (s *connSet) count() (all, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.waiting.Len()
}

// sourceOf returns the source of an address: the address, or 64 bits of IPv6.
func sourceOf(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // an invalid address is a source as well
	return p
}
