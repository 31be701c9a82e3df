package relay

import (
	"context"
	"net/netip"
	"sync"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// resetLen is the length of quic-go's stateless resets. All of a reset but the last 16
// bytes is random (RFC 9000 §10.3).
const resetLen = 42

// handshakes are the addresses at which clients have completed a handshake with the
// relay. Another relay does not forward handshakes, so no such address is a relay's.
//
// Package amplify tracks validated addresses as well, but there an address is also
// validated when a connection has moved to it. That is not enough here, because it may
// be the address of another relay, which has forwarded the packets.
type handshakes struct {
	mu    sync.RWMutex
	addrs map[netip.AddrPort]int // how many connections
}

// add adds an address until ctx, which is its connection's, is done.
func (h *handshakes) add(ctx context.Context, addr netip.AddrPort) {
	h.count(addr, 1)
	context.AfterFunc(ctx, func() { h.count(addr, -1) })
}

func (h *handshakes) count(addr netip.AddrPort, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addrs == nil {
		h.addrs = make(map[netip.AddrPort]int)
	}
	if h.addrs[addr] += n; h.addrs[addr] == 0 {
		delete(h.addrs, addr)
	}
}

func (h *handshakes) has(addr netip.AddrPort) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.addrs[addr] > 0
}

// maySend says whether a message of the relay's own QUIC may be sent. Another relay
// drops packets with a connection ID that has bit 7 set. A packet whose ID has it clear
// could be forwarded by another relay, to a client that has registered that ID there,
// and this relay would validate the other relay's address for that client. So such a
// packet is only sent to an address at which a handshake was completed. A stateless
// reset gets bit 7 set, because it is random there. Long headers may always be sent:
// their source ID has bit 7 set, so no relay forwards them.
func (h *handshakes) maySend(m *udp.Message) bool {
	for data := range m.Segments() {
		if len(data) < 2 || wire.IsLong(data[0]) || cid.RoleOf(data[1:]) == cid.Relay {
			continue
		}
		if h.has(m.Remote) {
			return true
		}
		if len(data) != resetLen {
			return false
		}
		data[1] |= 0x80
	}
	return true
}
