package quota

import "net/netip"

// flowWays is among how many entries one is looked for, and flowSets how many
// such sets a shard has.
const (
	flowWays = 4
	flowSets = 256
)

// flows remembers, for as long as a handshake may take, which attempts have been
// let in, so that the second datagram of a ClientHello, and those that are sent
// again, are not taken for new attempts; and which have been refused. What there
// is no room for is taken for new.
type flows struct {
	entries []flow // flowSets times flowWays; made when the first comes
}

// flow is an attempt, by the hash of its address and ID: of an unknown seed, so
// that nobody can choose two that collide.
type flow struct {
	tag     uint64
	until   instant
	refused bool
}

func (f *flows) set(tag uint64) []flow {
	at := tag % flowSets * flowWays
	return f.entries[at : at+flowWays]
}

// find returns what is known of an attempt.
func (f *flows) find(tag uint64, now instant) (refused, known bool) {
	if f.entries == nil {
		return false, false
	}
	for _, e := range f.set(tag) {
		if e.tag == tag && e.until > now {
			return e.refused, true
		}
	}
	return false, false
}

// put remembers an attempt, in place of the one that would be forgotten first.
func (f *flows) put(tag uint64, until instant, refused bool) {
	if f.entries == nil {
		f.entries = make([]flow, flowSets*flowWays)
	}
	set := f.set(tag)
	at := 0
	for i := range set {
		if set[i].tag == tag {
			at = i
			break
		}
		if set[i].until < set[at].until {
			at = i
		}
	}
	set[at] = flow{tag, until, refused}
}

// refusals remembers the latest refusals of the shard, by address and port.
// quic-go keeps nothing of an attempt that it has refused, and takes the second
// datagram of its ClientHello for another one.
type refusals struct {
	latest [16]refusal
	next   int
}

type refusal struct {
	remote netip.AddrPort
	until  instant
}

// repeatWindow is how long after a refusal more of the same attempt may come.
const repeatWindow = instant(250e6)

func (r *refusals) put(remote netip.AddrPort, now instant) {
	r.latest[r.next] = refusal{remote, now + repeatWindow}
	r.next = (r.next + 1) % len(r.latest)
}

func (r *refusals) has(remote netip.AddrPort, now instant) bool {
	for i := range r.latest {
		if r.latest[i].remote == remote && r.latest[i].until > now {
			return true
		}
	}
	return false
}

// forget is for when it is certain that what comes next is a new attempt.
func (r *refusals) forget(remote netip.AddrPort) {
	for i := range r.latest {
		if r.latest[i].remote == remote {
			r.latest[i].until = 0
		}
	}
}
