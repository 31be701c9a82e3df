package ports

import (
	"sync"

	"github.com/quicway/quicway/p2p"
)

// maxSessions is how many sessions there may be, and maxPeerSessions how many of one peer. One whose
// peer has gone lasts until the idle timeout.
const (
	maxSessions     = 256
	maxPeerSessions = 8
)

// guests counts the sessions of peers that have connected. The zero value is ready to use.
type guests struct {
	mu    sync.Mutex // guards the following
	all   int
	peers map[p2p.PeerID]int
}

// enter counts a session, unless there are too many.
func (g *guests) enter(id p2p.PeerID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == maxSessions || g.peers[id] == maxPeerSessions {
		return false
	}
	if g.peers == nil {
		g.peers = map[p2p.PeerID]int{}
	}
	g.all++
	g.peers[id]++
	return true
}

func (g *guests) leave(id p2p.PeerID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.peers[id]--; g.peers[id] == 0 {
		delete(g.peers, id)
	}
}
