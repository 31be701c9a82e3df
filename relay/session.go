package relay

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/quota"
)

// linger is how long an ended leg still gets packets, so that the last ones
// of a connection arrive: quic-go repeats CONNECTION_CLOSE for three PTOs.
const linger = 10 * time.Second

// strayBudget is how many packets from another address than the registered
// one are forwarded, in strayPeriod, while a leg's NAT may have rebound it and
// its control connection has not shown the new address yet.
const (
	strayBudget = 32
	strayPeriod = 10 * time.Second
)

// noCounter is the Counter in the Association of an Initial's ID, which the
// dialer drew at random.
const noCounter = ^uint64(0)

// session is the meeting of two legs.
type session struct {
	num     uint64
	id      control.SessionID
	account accountTag
	quota   *quota.Slot // nil: not counted

	// mu guards the legs' registration, not what the forwarding loop reads.
	mu     sync.Mutex
	joined bool // the join token has been used
	over   bool
	legs   [2]leg
}

// leg is one end of a session: where a peer is, and which IDs are its own.
type leg struct {
	// Read by forwarding loops.
	addr   atomic.Pointer[legAddr]   // nil: not there
	holder atomic.Pointer[cid.Owner] // owner, once its IDs are routed; nil: none are
	due    atomic.Uint64             // a hit from this counter on slides the window
	told   atomic.Bool               // such a hit waits in Server.hits
	low    atomic.Uint64             // IDs before this counter the offload does not know
	late   atomic.Uint32             // packets with one of these
	heard  atomic.Int64              // Unix time in nanoseconds of its last packet
	strays strayLimit

	// Guarded by session.mu.
	present     bool
	byJoin      bool // had by the join token, and not resumed since
	key         cid.Key
	owner       cid.Owner
	ids         *cid.Deriver
	window      cid.Window
	near        cid.Range        // what of it the offload knows
	offloaded   datapath.Traffic // what it has sent to the leg, as far as that is counted
	initial     cid.ID           // zero: none
	initialGone time.Time
	client      *client
	ttl         time.Duration
	refreshed   time.Time
	stored      time.Time // when the store forgets its IDs
	ended       time.Time // zero: not ended
}

// legAddr is where a leg is, and where it sees the relay. It never changes: a
// leg that moves gets another.
type legAddr struct {
	remote netip.AddrPort
	local  netip.Addr // invalid: whatever the system chooses
	group  int        // the sockets that can send there
}

// aliveLocked says until when a leg lives without further sign: for its TTL after
// its last refresh, or its last packet. Packets show that somebody sends from where
// the leg is, not that its owner is still there. So without any control connection
// of the session they do not count, and without the leg's own not for ever.
func (ses *session) aliveLocked(role control.Role) time.Time {
	l := &ses.legs[role]
	last, heard := l.refreshed, time.Unix(0, l.heard.Load())
	switch {
	case l.connected():
	case ses.legs[role.Peer()].connected():
		if end := l.refreshed.Add(resumeTTLs * l.ttl); heard.After(end) {
			heard = end
		}
	default:
		return last.Add(l.ttl)
	}
	if heard.After(last) {
		last = heard
	}
	return last.Add(l.ttl)
}

// connected says whether the control connection is there that refreshed the leg
// last.
func (l *leg) connected() bool { return l.present && l.client != nil && l.client.connected() }

// remote is where the leg is: the zero AddrPort if nowhere.
func (l *leg) remote() netip.AddrPort {
	if a := l.addr.Load(); a != nil {
		return a.remote
	}
	return netip.AddrPort{}
}

// strayLimit lets strayBudget packets pass in each strayPeriod.
type strayLimit struct {
	mu    sync.Mutex
	since time.Time
	spent int
}

func (l *strayLimit) take(now time.Time, packets int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= strayPeriod {
		l.since, l.spent = now, 0
	}
	if l.spent+packets > strayBudget {
		return false
	}
	l.spent += packets
	return true
}

// notify tells both legs' clients.
func (ses *session) notify(e control.Event) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for i := range ses.legs {
		if l := &ses.legs[i]; l.present {
			l.client.notify(e)
		}
	}
}

// ownerOf is who a leg's IDs are put into the store by. It is the same after a
// restart, and tells nothing about the key.
func ownerOf(id control.SessionID, role control.Role, key cid.Key) cid.Owner {
	h := sha256.New()
	h.Write([]byte("quicway leg"))
	h.Write(id[:])
	h.Write([]byte{byte(role)})
	h.Write(key[:])
	return cid.Owner(h.Sum(nil)[:len(cid.Owner{})])
}
