package amplify

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// Peer is the remote end of a connection, or of a handshake.
type Peer struct {
	l    *Limit
	conn Conn   // nil until Follow is called
	tag  uint64 // of the last known address
	left bool
}

// Conn is the part of a quic.Conn that a Peer needs. RemoteAddr returns the address that QUIC has
// validated last.
type Conn interface{ RemoteAddr() net.Addr }

// followed are the connections that moved asks for their addresses.
type followed struct {
	mu    sync.Mutex // guards the following, and all peers; locked before a shard's mu
	peers map[*Peer]struct{}
	next  time.Time // do not ask before
}

// share bounds the time that is spent on asking: 1/share of all time.
const share = 20

// Enter makes the Peer of a handshake that begins. The account of its address is kept until
// [Peer.Leave] is called.
func (l *Limit) Enter(remote netip.AddrPort) *Peer {
	p := &Peer{l: l, tag: l.tag(remote)}
	l.pin(p.tag, false)
	return p
}

// Follow notes that the handshake is complete. From then on the address of conn is validated, also
// when the connection migrates. p may be nil.
func (p *Peer) Follow(conn Conn) {
	if p == nil {
		return
	}
	f := &p.l.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.left {
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

// Leave notes that the connection or the handshake has ended. It may be called more than once, and
// p may be nil.
func (p *Peer) Leave() {
	if p == nil {
		return
	}
	f := &p.l.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	delete(f.peers, p)
	p.l.unpin(p.tag)
}

// at returns the tag of the connection's address.
func (p *Peer) at() uint64 {
	addr := udp.AddrPort(p.conn.RemoteAddr())
	if !addr.IsValid() {
		return p.tag
	}
	return p.l.tag(addr)
}

// repin moves a connection from an old address to a new one, which is validated. It returns the
// new one.
func (l *Limit) repin(old, now uint64) uint64 {
	l.pin(now, true)
	l.unpin(old)
	return now
}

// moved says whether a connection has migrated to an address. It asks all connections for their
// addresses, but not so often that it would take more than 1/share of the time. It does not
// block: if another goroutine is asking, it returns false.
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
	return l.validated(tag)
}
