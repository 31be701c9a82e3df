package splice

import (
	"sync/atomic"
	"time"
)

func (p *splicePair) state() state { return state(atomic.LoadUint32(&p.State)) }

// seen returns what was seen of either direction.
func (p *splicePair) seen() uint32 {
	return p.Halves[fromClient].seen() | p.Halves[fromUpstream].seen()
}

// finished says whether both ends have acknowledged each other's FIN.
func (p *splicePair) finished() bool {
	return p.Halves[fromClient].seen()&p.Halves[fromUpstream].seen()&seenFINAck != 0
}

// settled says whether each end has acknowledged all that the other one has sent.
func (p *splicePair) settled() bool {
	client, upstream := &p.Halves[fromClient], &p.Halves[fromUpstream]
	return upstream.maxAck()-client.SeqAdd == client.maxEnd() && client.maxAck()-upstream.SeqAdd == upstream.maxEnd()
}

func (h *spliceHalf) seen() uint32   { return atomic.LoadUint32(&h.Seen) }
func (h *spliceHalf) maxEnd() uint32 { return atomic.LoadUint32(&h.MaxEnd) }
func (h *spliceHalf) maxAck() uint32 { return atomic.LoadUint32(&h.MaxAck) }

// progress is how far an end has come.
type progress struct{ sent, acknowledged uint32 }

func (h *spliceHalf) progress() progress { return progress{h.maxEnd(), h.maxAck()} }

// traffic returns what the kernel has counted.
func (h *spliceHalf) traffic() Half {
	out := Half{
		Packets:       atomic.LoadUint64(&h.Packets),
		Bytes:         atomic.LoadUint64(&h.Bytes),
		Retransmitted: atomic.LoadUint64(&h.Retransmitted),
		Finished:      h.seen()&seenFIN != 0,
	}
	if out.Packets > 0 {
		out.Last = time.Now().Add(-h.lastAge())
	}
	return out
}

// half returns what the kernel has seen of a direction. The entry has to be the pair's.
func (p *Pair) half(d direction) Half {
	h := p.entry.Halves[d].traffic()
	h.Stream = p.streams[d].upTo(p.entry.Halves[d].streamEnd(), h.Bytes-h.Retransmitted)
	return h
}

// streamEnd returns the end of the data. A FIN has a sequence number, but is no data.
func (h *spliceHalf) streamEnd() uint32 {
	end := h.maxEnd()
	if h.seen()&seenFIN != 0 {
		end--
	}
	return end
}

// connection returns the connection on which the packets of a direction leave.
func (h *spliceHalf) connection() tuple {
	local, remote := h.addrs()
	return tuple{remote: remote, local: local}
}
