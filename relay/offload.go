package relay

import (
	"net/netip"

	"github.com/quicway/quicway/cid"
)

// offload is told what has been decided about routes, so that something
// faster than the forwarding loop can keep a copy and act on it. It is never
// asked: without it every packet takes the loop. Calls about one session come
// one at a time and in order.
type offload interface {
	// putRoute says who is behind an ID.
	putRoute(id cid.ID, a cid.Association)
	// deleteRoute says that nobody is any more.
	deleteRoute(id cid.ID)
	// putSession says where the two legs of a session are; the zero
	// AddrPort: nowhere yet.
	putSession(num uint64, dialer, accepter netip.AddrPort)
	// deleteSession says that the session is over.
	deleteSession(num uint64)
}

// noOffload leaves everything to the forwarding loop.
type noOffload struct{}

var _ offload = noOffload{}

func (noOffload) putRoute(cid.ID, cid.Association)                  {}
func (noOffload) deleteRoute(cid.ID)                                {}
func (noOffload) putSession(uint64, netip.AddrPort, netip.AddrPort) {}
func (noOffload) deleteSession(uint64)                              {}
