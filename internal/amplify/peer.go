package amplify

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Peer is the far end of a connection, or of a handshake.
type Peer struct {
	l    *Limit
	conn Conn   // once it is followed
	tag  uint64 // its address
	gone bool
}

// Conn is what a [quic.Conn] tells of its peer: an address that QUIC has validated.
type Conn interface{ RemoteAddr() net.Addr }

// followed are the connections that are asked where they are.
type followed struct {
	mu    sync.Mutex // guards the following, and all peers; taken before a shard's
	peers map[*Peer]struct{}
	next  time.Time // not to be asked before
}

// share is how much of the time may go into asking: one part of so many.
const share = 20

// Enter takes note of a handshake that is let in. What is known of its address is
// not forgotten until [Peer.Leave] is called.
func (l *Limit) Enter(remote netip.AddrPort) *Peer {
	p := &Peer{l: l, tag: l.tag(remote)}
	l.pin(p.tag, false)
	return p
}

// Follow takes note of a connection whose handshake is complete. Its address is
// validated, wherever it moves. p may be nil.
func (p *Peer) Follow(conn Conn) {
	if p == nil {
		return
	}
	f := &p.l.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.gone {
		return
	}
	p.conn = conn
	if f.peers == nil {
		f.peers = make(map[*Peer]struct{})
	}
	f.peers[p] = struct{}{}
	p.l.following.Store(true)
	p.tag = p.l.repin(p.tag, p.at())
}

// Leave takes note of the end of the connection, or the handshake. It may be called
// more than once, and p may be nil.
func (p *Peer) Leave() {
	if p == nil {
		return
	}
	f := &p.l.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.gone {
		return
	}
	p.gone = true
	delete(f.peers, p)
	p.l.unpin(p.tag)
}

// at stands for where the connection is.
func (p *Peer) at() uint64 {
	udp, ok := p.conn.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return p.tag
	}
	addr := udp.AddrPort()
	return p.l.tag(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
}

// repin is for a connection that is at an address, which is validated, and was at
// another.
func (l *Limit) repin(old, now uint64) uint64 {
	l.pin(now, true)
	l.unpin(old)
	return now
}

// moved says whether a connection has moved to an address. All are asked, which takes
// a small part of the time at most, however often addresses come that are not theirs;
// and nobody waits for it who is not asking.
func (l *Limit) moved(tag uint64) bool {
	f := &l.followed
	if !f.mu.TryLock() {
		return false
	}
	defer f.mu.Unlock()
	now := time.Now()
	if len(f.peers) == 0 || now.Before(f.next) {
		return false
	}
	for p := range f.peers {
		if at := p.at(); at != p.tag {
			p.tag = l.repin(p.tag, at)
		}
	}
	f.next = now.Add(share * time.Since(now))
	return l.proven(tag)
}
