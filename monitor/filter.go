package monitor

import (
	"net/netip"
	"strings"

	"github.com/quicway/quicway/internal/wire"
)

// Filter selects connections by their endpoints and names. [ParseFilter] makes one. A nil Filter
// selects all. A Filter does not change, and may be used by several trackers.
//
// # How it is applied
//
// A connection is selected once one of its paths matches, and stays selected wherever it moves.
// Between endpoints that cannot match whatever the name, no connection begins and nothing is
// kept. Only a connection that is tracked anyway may move there.
//
// A name is known once the ClientHello was read. Until then the connection is tracked but neither
// in [Tracker.Connections] nor in events, unless its endpoints alone decide. Its EventNew comes
// once it is selected. A connection whose ClientHello can no longer come has no name: after half a
// minute, when it is closed, and when [Monitor.Run] has ended.
// [Tracker.Stats] and the views of the tables, such as [Tracker.Flows], have all that is tracked.
type Filter struct {
	text string
	root term // nil: all match
}

// String returns the text that was parsed.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.text
}

// excludes reports whether no connection between two endpoints can match, whatever its name is.
func (f *Filter) excludes(key tuple) bool {
	return f != nil && f.root != nil && f.root.match(subject{ends: key}) == no
}

// matches reports whether a path of a connection matches.
func (f *Filter) matches(c *connection) bool {
	if f == nil || f.root == nil {
		return true
	}
	s := subject{}
	s.name, s.named = c.serverName()
	for _, p := range c.paths {
		if s.ends = p.key; f.root.match(s) == yes {
			return true
		}
	}
	return false
}

// selectedBy reports whether a filter has ever selected the connection.
func (c *connection) selectedBy(f *Filter) bool {
	c.selected = c.selected || f.matches(c)
	return c.selected
}

// serverName returns the name in the ClientHello. known is false while that may still come.
func (c *connection) serverName() (name string, known bool) {
	if c.tls != nil {
		name = c.tls.ServerName
	}
	h := c.handshake
	return name, name != "" || !c.negotiated && (h == nil || h.read[wire.Client])
}

// endHandshake notes that nothing more can come of a connection's handshake. If the ClientHello has
// not come the connection has no name.
func (x *index) endHandshake(c *connection) {
	x.handshakes.remove(c.number)
	c.handshake, c.negotiated = nil, false
}

// ignores reports whether nothing is to be kept of packets between two endpoints: the filter
// excludes them, and no connection is at either, which could move there.
func (x *index) ignores(key tuple) bool {
	if !x.filter.excludes(key) {
		return false
	}
	for _, end := range [...]endpoint{key.a, key.b} {
		if x.sources.peek(sourceKey{server: end}) != nil || x.sources.peek(sourceKey{client: end}) != nil {
			return false
		}
	}
	return true
}

// countOther counts datagrams that belong to no connection.
func (x *index) countOther(key tuple, datagrams uint64) {
	x.counters.Other += datagrams
	if x.filter != nil && x.filter.excludes(key) {
		x.counters.Filtered += datagrams
	}
}

// shun notes that another connection than those that could move there began between endpoints
// that the filter excludes.
func (x *index) shun(a *arrival) {
	if !x.ignores(a.key) {
		x.potential.of(a).shunned = true
	}
}

// subject is what a filter is asked about: two endpoints, and the name of a connection between
// them. named is false if the name is not known.
type subject struct {
	ends  tuple
	name  string
	named bool
}

// verdict is the answer of a filter, or of a part of it. The greater one wins an "or", and the
// lesser one an "and".
type verdict int8

const (
	no    verdict = -1
	maybe verdict = 0 // the name decides
	yes   verdict = 1
)

// verdictOf returns yes or no.
func verdictOf(matches bool) verdict {
	if matches {
		return yes
	}
	return no
}

// term is a part of a filter.
type term interface{ match(s subject) verdict }

type (
	allOf    []term
	anyOf    []term
	notTerm  struct{ term }
	hostTerm struct{ ip [16]byte }
	portTerm uint16
	netTerm  struct{ prefix netip.Prefix }
	nameTerm string // a pattern in small letters
)

func (t allOf) match(s subject) verdict {
	out := yes
	for i := 0; i < len(t) && out != no; i++ {
		out = min(out, t[i].match(s))
	}
	return out
}

func (t anyOf) match(s subject) verdict {
	out := no
	for i := 0; i < len(t) && out != yes; i++ {
		out = max(out, t[i].match(s))
	}
	return out
}

func (t notTerm) match(s subject) verdict { return -t.term.match(s) }

func (t hostTerm) match(s subject) verdict {
	return verdictOf(s.ends.a.IP == t.ip || s.ends.b.IP == t.ip)
}

func (t portTerm) match(s subject) verdict {
	return verdictOf(s.ends.a.Port == uint16(t) || s.ends.b.Port == uint16(t))
}

func (t netTerm) match(s subject) verdict {
	return verdictOf(t.prefix.Contains(s.ends.a.Addr()) || t.prefix.Contains(s.ends.b.Addr()))
}

func (t nameTerm) match(s subject) verdict {
	if !s.named {
		return maybe
	}
	return verdictOf(s.name != "" && len(s.name) <= maxName && matchesName(string(t), s.name))
}

// matchesName reports whether a name matches a pattern, in which a star stands for any characters.
func matchesName(pattern, name string) bool {
	star, restart := -1, 0 // where to go on if the characters after the latest star do not match
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, restart = p, n
			p++
		case p < len(pattern) && pattern[p] == small(name[n]):
			p++
			n++
		case star >= 0:
			restart++
			p, n = star+1, restart
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// small returns the small letter of a capital.
func small(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}
