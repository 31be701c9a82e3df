package p2p

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// maxPings bounds the pings that may still be answered.
const maxPings = 4 * maxPairs

// pinger sends probes, and remembers the pings that may still be answered.
type pinger struct {
	*prober
	link  *link
	list  *checklist
	pings map[uint64]sentPing // by sequence number
}

// sentPing is a ping to an address of the peer's.
type sentPing struct {
	remote netip.AddrPort
	size   int // in bytes of UDP payload; 0: the smallest
	at     time.Time
}

func newPinger(prober *prober, l *link, list *checklist) *pinger {
	return &pinger{prober: prober, link: l, list: list, pings: make(map[uint64]sentPing)}
}

// ping sends a ping of a size to an address; size 0 is the smallest. It returns the
// sequence number. The only error is the system's EMSGSIZE; others are noted in the
// checklist.
func (p *pinger) ping(to netip.AddrPort, size int, now time.Time) (uint64, error) {
	data, sequence := p.sealPing(size)
	p.remember(sequence, sentPing{to, size, now})
	err := p.link.mux.push(&udp.Message{Data: data, Remote: to})
	if udp.IsMessageTooLong(err) {
		return sequence, err
	}
	if pair := p.list.find(to); pair != nil {
		pair.err = err
	}
	return sequence, nil
}

// remember keeps a ping, so that its answer is known. The oldest make room.
func (p *pinger) remember(sequence uint64, ping sentPing) {
	if len(p.pings) >= maxPings {
		for n := range p.pings {
			if n+maxPings/2 < sequence {
				delete(p.pings, n)
			}
		}
	}
	p.pings[sequence] = ping
}

// match returns the ping that a pong from an address answers, once.
func (p *pinger) match(sequence uint64, from netip.AddrPort) (sentPing, bool) {
	ping, ok := p.pings[sequence]
	if !ok || ping.remote != from {
		return sentPing{}, false
	}
	delete(p.pings, sequence)
	return ping, true
}

// pong answers a ping from an address.
func (p *pinger) pong(sequence uint64, from netip.AddrPort) {
	_ = p.link.mux.write(&udp.Message{Data: p.sealPong(sequence, from), Remote: from})
}

// pingByRelay sends a ping of a size through the relay; size 0 is the smallest. It
// returns the sequence number. The only error is the system's EMSGSIZE.
func (p *pinger) pingByRelay(size int) (uint64, error) {
	data, sequence := p.sealPing(size - envelopeSize)
	err := p.link.sendEnvelope(data)
	if udp.IsMessageTooLong(err) {
		return sequence, err
	}
	return sequence, nil
}

// pongByRelay answers a ping that has come through the relay.
func (p *pinger) pongByRelay(sequence uint64) {
	_ = p.link.sendEnvelope(p.sealPong(sequence, p.link.remote()))
}
