package ports

import (
	"slices"
	"sync"

	"github.com/quicway/quicway/p2p"
)

// maxSessions is how many sessions there may be, and maxPeerSessions how many of one peer. One whose
// peer has gone lasts until that peer connects again, or the idle timeout.
const (
	maxSessions     = 256
	maxPeerSessions = 8
)

// guests are the sessions of peers that have connected. The zero value is ready to use.
type guests struct {
	tasks sync.WaitGroup // that run sessions, or look at them

	mu    sync.Mutex // guards the following
	all   int
	peers map[p2p.PeerID][]*Session
}

// of returns the sessions of a peer.
func (g *guests) of(id p2p.PeerID) []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.peers[id])
}

// enter adds a session, unless there are too many.
func (g *guests) enter(id p2p.PeerID, s *Session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == maxSessions || len(g.peers[id]) == maxPeerSessions {
		return false
	}
	if g.peers == nil {
		g.peers = map[p2p.PeerID][]*Session{}
	}
	g.all++
	g.peers[id] = append(g.peers[id], s)
	return true
}

// leave removes a session that has entered.
func (g *guests) leave(id p2p.PeerID, s *Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	i := slices.Index(g.peers[id], s)
	if g.peers[id] = slices.Delete(g.peers[id], i, i+1); len(g.peers[id]) == 0 {
		delete(g.peers, id)
	}
}
