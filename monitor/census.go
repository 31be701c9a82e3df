package monitor

import "github.com/quicway/quicway/internal/wire"

// census counts the connections that are kept, so that [Tracker.Stats] need not visit
// each of them while the tracker is locked.
type census struct {
	confidences [len(confidenceNames)]int
	states      [len(stateNames)]int
	versions    [len(versionGroups)]int
	protocols   [len(protocolGroups)]int
}

// group is what a connection is counted as.
type group struct {
	kept              bool
	confidence        Confidence
	state             State
	version, protocol uint8 // indexes of versionGroups and protocolGroups
}

// Groups of versions. A stranger may send any version, so only some have names.
const (
	versionOther = iota
	versionUnknown
	version1
	version2
	versionDraft
	versionGoogle
)

var versionGroups = [...]string{"other", "unknown", "v1", "v2", "draft", "gquic"}

// versionGroup returns the group of a version.
func versionGroup(v wire.Version) uint8 {
	switch {
	case v == 0:
		return versionUnknown
	case v == wire.Version1:
		return version1
	case v == wire.Version2:
		return version2
	case v.Draft() != 0:
		return versionDraft
	case v.Google():
		return versionGoogle
	}
	return versionOther
}

// Groups of application protocols other than those that protocolGroups names by their
// ALPN.
const (
	protocolOther = iota
	protocolNone
	protocolUnknown
	firstProtocol
)

var protocolGroups = [...]string{
	"other", "none", "unknown",
	"h3", "hq-interop", "doq", "smb", "libp2p", "moq-00", "perf",
}

// protocolGroup returns the group of the protocol that a client prefers. info is nil if
// its ClientHello was not read.
func protocolGroup(info *TLS) uint8 {
	switch {
	case info == nil || info.JA4 == "":
		return protocolUnknown
	case len(info.ALPN) == 0:
		return protocolNone
	}
	for i := firstProtocol; i < len(protocolGroups); i++ {
		if info.ALPN[0] == protocolGroups[i] {
			return uint8(i)
		}
	}
	return protocolOther
}

// group returns what the connection is to be counted as.
func (c *connection) group() group {
	state, _ := c.state(c.last)
	if state != StateEnded && c.quiet {
		state = StateSilent
	}
	return group{true, c.confidence, state, versionGroup(c.version), protocolGroup(c.tls)}
}

// add adds n connections of a group.
func (s *census) add(g group, n int) {
	s.confidences[g.confidence] += n
	s.states[g.state] += n
	s.versions[g.version] += n
	s.protocols[g.protocol] += n
}

// enter counts a new connection.
func (s *census) enter(c *connection) {
	c.counted = c.group()
	s.add(c.counted, 1)
}

// update counts a connection that is kept in the group that it now belongs to.
func (s *census) update(c *connection) {
	if now := c.group(); c.counted.kept && now != c.counted {
		s.add(c.counted, -1)
		s.enter(c)
	}
}

// leave counts a connection no longer.
func (s *census) leave(c *connection) {
	s.add(c.counted, -1)
	c.counted = group{}
}

// addTo adds the numbers to the counters, with an entry for each group.
func (s *census) addTo(out *Stats) {
	out.Connections = make(map[Confidence]int, len(s.confidences))
	for c, n := range s.confidences {
		out.Connections[Confidence(c)] = n
	}
	out.States = make(map[State]int, len(s.states))
	for state, n := range s.states {
		out.States[State(state)] = n
	}
	out.Versions = byName(versionGroups[:], s.versions[:])
	out.ALPN = byName(protocolGroups[:], s.protocols[:])
}

// byName returns numbers by their names.
func byName(names []string, numbers []int) map[string]int {
	out := make(map[string]int, len(names))
	for i, name := range names {
		out[name] = numbers[i]
	}
	return out
}
