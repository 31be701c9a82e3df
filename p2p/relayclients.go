package p2p

import (
	"fmt"
	"sync"
	"time"
)

// relayLinger is how long a control connection is kept that nothing needs, so that the
// next peer connection through the relay begins without delay.
const relayLinger = 30 * time.Second

// relayClients holds an endpoint's clients of the relays that it uses.
type relayClients struct {
	endpoint *Endpoint

	mu      sync.Mutex // guards the following
	closed  bool
	clients map[relayKey]*countedClient
}

// countedClient is a client and the number of its users.
type countedClient struct {
	*relayClient
	users int
}

func newRelayClients(e *Endpoint) relayClients {
	return relayClients{endpoint: e, clients: make(map[relayKey]*countedClient)}
}

// acquire returns the client of a relay. The caller releases it.
func (s *relayClients) acquire(r Relay) (*relayClient, error) {
	if r.Addr == "" {
		return nil, fmt.Errorf("%w: no address: Config.Relay is not set", ErrMalformedRelay)
	}
	if _, _, err := r.split(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	c := s.clients[r.key()]
	if c == nil {
		client, err := newRelayClient(s.endpoint, r)
		if err != nil {
			return nil, err
		}
		c = &countedClient{relayClient: client}
		s.clients[r.key()] = c
	}
	c.users++
	return c.relayClient, nil
}

// find returns the client of a relay, or nil if there is none.
func (s *relayClients) find(r Relay) *relayClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[r.key()]; c != nil {
		return c.relayClient
	}
	return nil
}

// isUsed says whether something uses a relay that works.
func (s *relayClients) isUsed(r Relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[r.key()]
	return c != nil && c.users > 0 && c.hasWorked()
}

// release ends one use of a client. Without users, the client is closed after a while,
// or at once if it has never worked.
func (s *relayClients) release(client *relayClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[client.relay.key()]
	if s.closed || c == nil || c.relayClient != client {
		return
	}
	if c.users--; c.users > 0 {
		return
	}
	if !c.hasWorked() {
		s.retireLocked(c)
		return
	}
	s.endpoint.tasks.Go(func() {
		sleep(s.endpoint.ctx, relayLinger)
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.users == 0 && !s.closed {
			s.retireLocked(c)
		}
	})
}

// retireLocked closes a client, and makes room for another one of the same relay.
func (s *relayClients) retireLocked(c *countedClient) {
	if s.clients[c.relay.key()] != c {
		return
	}
	delete(s.clients, c.relay.key())
	s.endpoint.tasks.Go(func() { _ = c.close() })
}

// all returns the clients.
func (s *relayClients) all() []*relayClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allLocked()
}

func (s *relayClients) allLocked() []*relayClient {
	all := make([]*relayClient, 0, len(s.clients))
	for _, c := range s.clients {
		all = append(all, c.relayClient)
	}
	return all
}

// shut lets nobody acquire a client any more. It returns those that there are, which
// the caller closes.
func (s *relayClients) shut() []*relayClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.allLocked()
}
