package monitor

import "github.com/quicway/quicway/internal/decap"

// Stats are the counters since the tracker was made, and the state of its tables.
// The JSON names stay. Later versions may add fields.
type Stats struct {
	// Packets counts all packets, and Datagrams the UDP datagrams in them. There
	// are more datagrams than packets if the system has put several together.
	Packets   uint64 `json:"packets"`
	Datagrams uint64 `json:"datagrams"`
	// Unread counts packets without a UDP datagram, by reason. It has an entry
	// for each reason.
	Unread map[string]uint64 `json:"unread"`
	// Tracked counts datagrams that belong to a connection, and Other all others. Together they are
	// Datagrams. Tracked is the sum of what all connections have counted, also those that are not
	// kept any more. Potential counts those of Other that were between unknown endpoints and may be
	// QUIC. Other and Potential go down when datagrams turn out to belong to a connection. Adopted
	// counts these datagrams, which are in Tracked then.
	Tracked   uint64 `json:"tracked"`
	Potential uint64 `json:"potential"`
	Other     uint64 `json:"other"`
	Adopted   uint64 `json:"adopted"`
	// Filtered counts those of Other whose endpoints [Config.Filter] excludes.
	Filtered uint64 `json:"filtered"`
	// Malformed counts invalid long headers of a known version.
	Malformed uint64 `json:"malformed"`
	// Unopened counts Initials of a known version that no known key decrypts.
	Unopened uint64 `json:"unopened"`
	// Bogus counts packets between the endpoints of a connection that do not
	// belong to it.
	Bogus uint64 `json:"bogus"`
	// Glued counts packets in which the system has put several datagrams together
	// that could not be told apart. Split counts the datagrams, after the first of
	// each packet, that could.
	Glued uint64 `json:"glued"`
	Split uint64 `json:"split"`
	// Conflicts counts connection IDs of a connection that another one had
	// already.
	Conflicts uint64 `json:"conflicts"`
	// PathOverflow, IDOverflow and ChangeOverflow count paths, connection IDs and
	// path changes that were dropped because one connection, or one pair of
	// endpoints, had too many.
	PathOverflow   uint64 `json:"path_overflow"`
	IDOverflow     uint64 `json:"id_overflow"`
	ChangeOverflow uint64 `json:"change_overflow"`
	// HelloErrors counts ClientHellos and ServerHellos that were invalid.
	HelloErrors uint64 `json:"hello_errors"`
	// HandshakesSkipped counts handshakes that were not read to their end because
	// of [Config.MaxHandshakes].
	HandshakesSkipped uint64 `json:"handshakes_skipped"`
	// EventsLost counts events that were dropped because a reader was too slow. It
	// is 0 in [Tracker.Stats].
	EventsLost uint64 `json:"events_lost"`
	// SourceDropped is [Source.Dropped]. It is 0 in [Tracker.Stats].
	SourceDropped uint64 `json:"source_dropped"`
	// FlowsEvicted counts flows that were removed from the kernel to make room. Packets
	// that it had counted since it was last read are lost.
	FlowsEvicted uint64 `json:"flows_evicted"`

	// Opened counts all connections, also those that are not kept any more.
	Opened uint64 `json:"opened"`
	// HandshakeRTT has the round trips of handshakes whose halves were both seen.
	// HandshakeServerSide and HandshakeClientSide have these halves ([HandshakeRTT]).
	HandshakeRTT        Histogram `json:"handshake_rtt"`
	HandshakeServerSide Histogram `json:"handshake_server_side"`
	HandshakeClientSide Histogram `json:"handshake_client_side"`
	// PathChanges counts changes of path by kind and by how sure they are, also those
	// that [Connection] omits. It has an entry for each kind but NoChange, and each level.
	PathChanges map[ChangeKind]map[Level]uint64 `json:"path_changes"`

	// Connections has the number of connections that are kept for each confidence, also of
	// those that [Config.Filter] does not select.
	Connections map[Confidence]int `json:"connections"`
	// States has that number for each state. A connection is counted as silent up to a quarter of a
	// second late.
	States map[State]int `json:"states"`
	// Versions has that number for each version in use: "v1", "v2", "draft" for drafts of
	// version 1, "gquic" for Google's own versions, "other", and "unknown" if the
	// connection began before the capture.
	Versions map[string]int `json:"versions"`
	// ALPN has that number for the protocol that the client prefers, the first one in its
	// ClientHello: "h3", "hq-interop", "doq", "smb", "libp2p", "moq-00", "perf", "other",
	// "none" if there is none, and "unknown" if the ClientHello was not read.
	ALPN map[string]int `json:"alpn"`
	// Tables has the state of each table: "connections", "handshakes" that are being read,
	// "flows", "ids", "destinations", "sources", "potential", and "open_moves", the paths
	// that one of several connections has moved to.
	Tables map[string]TableStats `json:"tables"`
}

// TableStats is the state of a table.
type TableStats struct {
	Entries int `json:"entries"`
	Limit   int `json:"limit"`
	// Evicted counts entries that were removed to make room. Expired counts those
	// that were removed after [Config.Idle].
	Evicted uint64 `json:"evicted"`
	Expired uint64 `json:"expired"`
}

func (t *table[K, V]) stats() TableStats {
	return TableStats{Entries: t.len(), Limit: t.limit, Evicted: t.evicted, Expired: t.expired}
}

// counters are the counters of a tracker.
type counters struct {
	Stats
	unread     [decap.NumReasons]uint64
	handshakes handshakeTimes
	changes    [len(changeNames)][len(levelNames)]uint64
}

// potential counts datagrams of a candidate, unless it is not QUIC.
func (c *counters) potential(s *candidate, datagrams uint64) {
	if !s.disproved {
		c.Potential += datagrams
		s.potential += datagrams
	}
}

// adopt counts datagrams that have turned out to belong to a connection. potential is how many of
// them Potential has.
func (c *counters) adopt(datagrams, potential uint64) {
	c.Tracked += datagrams
	c.Adopted += datagrams
	c.Other -= datagrams
	c.Potential -= potential
}

// stats returns a copy without the state of the tables.
func (c *counters) stats() Stats {
	out := c.Stats
	out.Unread = make(map[string]uint64, decap.NumReasons-1)
	for r := decap.Found + 1; int(r) < decap.NumReasons; r++ {
		out.Unread[r.String()] = c.unread[r]
	}
	out.HandshakeRTT = c.handshakes.whole.histogram()
	out.HandshakeServerSide = c.handshakes.serverSide.histogram()
	out.HandshakeClientSide = c.handshakes.clientSide.histogram()
	out.PathChanges = c.pathChanges()
	return out
}

// pathChanges returns [Stats.PathChanges].
func (c *counters) pathChanges() map[ChangeKind]map[Level]uint64 {
	out := make(map[ChangeKind]map[Level]uint64, len(c.changes)-1)
	for kind := NoChange + 1; int(kind) < len(c.changes); kind++ {
		out[kind] = make(map[Level]uint64, len(levelNames))
		for level, n := range c.changes[kind] {
			out[kind][Level(level)] = n
		}
	}
	return out
}
