package relay

import (
	"context"
	"net/netip"
	"sync"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// resetLen is the length of quic-go's stateless resets, whose first 26 bytes are
// random (RFC 9000 §10.3).
const resetLen = 42

// proven are the addresses at which clients have made a handshake with the relay.
// Another relay forwards none, so that these addresses are no relay's.
type proven struct {
	mu    sync.RWMutex
	addrs map[netip.AddrPort]int // connections
}

// add takes an address in until ctx, its connection's, is done.
func (p *proven) add(ctx context.Context, addr netip.AddrPort) {
	p.count(addr, 1)
	context.AfterFunc(ctx, func() { p.count(addr, -1) })
}

func (p *proven) count(addr netip.AddrPort, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.addrs == nil {
		p.addrs = make(map[netip.AddrPort]int)
	}
	if p.addrs[addr] += n; p.addrs[addr] == 0 {
		delete(p.addrs, addr)
	}
}

func (p *proven) has(addr netip.AddrPort) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.addrs[addr] > 0
}

// maySend says whether a message of the relay's own QUIC may leave. Another relay
// drops what carries bit 7 in an ID. What does not it may forward, to whoever has
// registered that ID there: then the relay would validate the other relay's address
// for somebody else. Such a message goes only to where a handshake has been made.
// Long headers always may: their source ID has bit 7, and no relay forwards them.
func (p *proven) maySend(m *udp.Message) bool {
	for data := range m.Segments() {
		if len(data) < 2 || wire.IsLong(data[0]) || cid.RoleOf(data[1:]) == cid.Relay {
			continue
		}
		if p.has(m.Remote) {
			return true
		}
		if len(data) != resetLen {
			return false
		}
		data[1] |= 0x80 // random in a reset, so that it may be set
	}
	return true
}
