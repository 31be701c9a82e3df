package p2p

import (
	"context"
	"fmt"
	"sync"
)

// maxOffered bounds the offers that an endpoint has for one peer in mailboxes at the same time. The
// peer answers as many of one sender at once.
const maxOffered = maxAnsweringSender

// dialTurns has dials of a peer wait while it has enough offers of this endpoint. Without them, a
// mailbox would refuse the offers of many dials at the same time.
type dialTurns struct {
	mu    sync.Mutex // guards the following, and what it holds
	peers map[PeerID]*dialTurn
}

// dialTurn is the dials of one peer.
type dialTurn struct {
	dials  int           // those that have or wait for a place
	places chan struct{} // holds a token for each place that is taken
}

func newDialTurns() dialTurns { return dialTurns{peers: make(map[PeerID]*dialTurn)} }

// wait waits for a place among the dials of a peer. The caller calls end when its dial has ended.
func (d *dialTurns) wait(ctx context.Context, peer PeerID) (end func(), err error) {
	d.mu.Lock()
	t := d.peers[peer]
	if t == nil {
		t = &dialTurn{places: make(chan struct{}, maxOffered)}
		d.peers[peer] = t
	}
	t.dials++
	d.mu.Unlock()
	select {
	case t.places <- struct{}{}:
		return func() {
			<-t.places
			d.leave(peer, t)
		}, nil
	case <-ctx.Done():
		d.leave(peer, t)
		return nil, fmt.Errorf("wait for %d other dials of the peer: %w", maxOffered, context.Cause(ctx))
	}
}

// leave forgets a peer that nobody dials any more.
func (d *dialTurns) leave(peer PeerID, t *dialTurn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.dials--; t.dials == 0 {
		delete(d.peers, peer)
	}
}
