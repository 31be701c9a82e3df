package sni

import "time"

// An address may have several connections, and the client of one of them may begin to use an ID
// that is not known, because the upstream has announced it in an encrypted frame. Then the
// datagram goes to all upstreams of the address, of which all but one drop it, until it is clear
// which connection the ID is of: all others have used their known IDs since. Those that have
// used them for a while since no longer get it.

// guess is an ID that a flow's client may have begun to use.
type guess struct {
	id    connID
	since int64 // when it came first, as shard.now
	count int
}

// add counts an ID, and returns how often it has come in a row.
func (g *guess) add(id connID, now int64) int {
	if g.id != id || g.count == 0 {
		*g = guess{id: id, since: now}
	}
	g.count++
	return g.count
}

// minGuess is how often an ID has to come until it is clear which connection it is of.
const minGuess = 8

// maxReorder is how much later than the first datagram with a new ID those with the old ID may
// come, in ns. They were sent before.
const maxReorder = int64(time.Second)

// mayUse reports whether the flow's client may use the ID that is not known in a run.
func (f *flow) mayUse(r *run) bool {
	if !f.usable() || !f.confirmed.Load() {
		return false
	}
	length := int(f.conn.idLen.Load())
	if length < minKnownID {
		return true
	}
	id, ok := shortID(r.data, length)
	return ok && (f.guess.id != id || f.used <= f.guess.since+maxReorder)
}

// guessOne relays a run with an ID that is not known, from an address with several flows.
func (sh *shard) guessOne(p *peer, r *run) {
	var likely *flow
	candidates := 0
	for _, f := range p.flows {
		length := int(f.conn.idLen.Load())
		id, ok := shortID(r.data, max(length, 0))
		if !ok || length < minKnownID || !f.confirmed.Load() {
			continue
		}
		if f.guess.add(id, sh.now); f.used <= f.guess.since {
			likely = f
			candidates++
		}
	}
	if candidates == 1 && likely.guess.count >= minGuess {
		sh.learn(likely, likely.guess.id)
		sh.pass(likely, r, noEvidence)
		return
	}
	sent := false
	for _, f := range p.flows {
		if f.mayUse(r) {
			sh.forward(f, r)
			sent = true
		}
	}
	if !sent {
		sh.drop(r, DropUnknownID)
	}
}
