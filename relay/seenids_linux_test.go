package relay_test

import (
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/xdptest"
)

// seenIDs is a store that remembers which IDs were put.
type seenIDs struct {
	*cid.MemoryStore
	mu   sync.Mutex
	seen []cid.ID
}

func (s *seenIDs) Put(id cid.ID, a cid.Association, ttl time.Duration) error {
	s.mu.Lock()
	s.seen = append(s.seen, id)
	s.mu.Unlock()
	return s.MemoryStore.Put(id, a, ttl)
}

// kernelIDs returns the IDs that the kernel knows.
func (n *internet) kernelIDs() (known []cid.ID) {
	n.Helper()
	n.ids.mu.Lock()
	seen := slices.Clone(n.ids.seen)
	n.ids.mu.Unlock()
	for _, id := range seen {
		_, ok, err := xdptest.Relay(n, n.program).Route(id)
		if err != nil {
			n.Fatal(err)
		}
		if ok && !slices.Contains(known, id) {
			known = append(known, id)
		}
	}
	return known
}
