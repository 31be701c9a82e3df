package splice

import "time"

// handle handles an event. What it is about is in the entry of the pair.
func (k *keeper) handle(e event) {
	if int(e.Pair) >= len(k.table.pairs) {
		return
	}
	if p := k.pairs[e.Pair]; p != nil {
		if p.entry.Generation != e.Generation {
			e = event{} // it is about an earlier pair
		}
		k.lookAt(p, e)
	} else if e.What == renewed {
		k.freeEnded(e.Pair, e.Generation)
	}
}

// wishes are the reasons for which the programs ask for a way back, by the bits of spliceHalf.Seen.
var wishes = [...]struct {
	bits uint32
	why  Reason
}{
	{seenTooBig | seenICMP, WantedTooBig},
	{seenOptions, WantedOptions},
	{seenTTL, WantedTTL},
}

// look handles what the programs have noted in the entry of a pair.
func (k *keeper) look(p *Pair) { k.lookAt(p, event{}) }

// lookAt is look after an event.
func (k *keeper) lookAt(p *Pair, e event) {
	if !p.taken || p.over {
		return
	}
	seen := p.entry.seen()
	switch {
	case p.entry.finished(): // a RST that comes later is of an end that has forgotten the connection
		k.conclude(p, Finished)
		return
	case seen&seenRST != 0:
		k.conclude(p, Reset)
		return
	}
	for _, w := range wishes {
		if seen&^p.asked&w.bits != 0 {
			p.asked |= w.bits
			k.count(w.why)
			p.ask(w.why)
		}
	}
	if seen&(seenTooBig|seenICMP) != 0 {
		k.lookTooBig(p, e)
	}
}

// conclude ends a pair whose ends have done so. The entry goes on forwarding late packets.
func (k *keeper) conclude(p *Pair, how End) {
	p.entry.setState(closed)
	p.drop()
	delete(k.pairs, p.slot)
	k.ended = append(k.ended, ended{slot: p.slot, generation: p.entry.Generation, at: time.Now()})
	k.finish(p, how)
}

// abort ends a pair, and resets its connections.
func (k *keeper) abort(p *Pair, how End) {
	if p.over {
		return
	}
	fds, err := p.reserveBoth()
	p.drop()
	legs := [2]*leg{p.leg(fromClient), p.leg(fromUpstream)}
	for i, l := range legs {
		// What the other end has sent may have arrived without that we know of it.
		other := &p.entry.Halves[1-i]
		l.sndNxt = other.maxEnd() + other.SeqAdd
	}
	k.finish(p, how)
	k.remove(p)
	if err != nil {
		k.log.Warn("the ends of a pair were not sent a reset", "client", p.ends[fromClient].remote, "err", err)
		return
	}
	for i, l := range legs {
		if err := l.reject(fds[i]); err != nil {
			k.log.Warn("an end was not sent a reset", "end", l.remote, "err", err)
		}
	}
}

// finish tells the owner of a pair how it has ended. The entry has to exist.
func (k *keeper) finish(p *Pair, how End) {
	for i := range p.final {
		p.final[i] = p.half(direction(i))
	}
	p.over, p.end = true, how
	switch how {
	case Finished:
		k.count(Ended)
	case Reset:
		k.count(WasReset)
	case CameBack:
		k.count(WentBack)
	}
	close(p.done)
}
