package relay

import "sync"

// subscribers are the clients that have an open request for events, so that the server can
// tell all of them that it drains. Their number is that of the control connections at most.
type subscribers struct {
	members *members

	mu  sync.Mutex // guards the following, and the beginning of the drain
	all map[*client]struct{}
}

func newSubscribers(m *members) *subscribers {
	return &subscribers{members: m, all: make(map[*client]struct{})}
}

// add adds a client, and tells it if the server drains.
func (s *subscribers) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[c] = struct{}{}
	if s.members.draining() {
		c.events.addLast(s.members.shutdown())
	}
}

func (s *subscribers) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// drain begins the drain, and tells all clients, once.
func (s *subscribers) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members.draining() {
		return
	}
	s.members.drain()
	for c := range s.all {
		c.events.addLast(s.members.shutdown())
	}
}
