package monitor

import "github.com/quicway/quicway/internal/decap"

// Stats counts since the tracker was made. Its JSON has these names, and further
// ones may come.
type Stats struct {
	// Packets are all that came, and Datagrams the UDP datagrams in them, which
	// are more where the system has put several together.
	Packets   uint64 `json:"packets"`
	Datagrams uint64 `json:"datagrams"`
	// Unread counts packets that hold no datagram, by reason. It has all
	// reasons.
	Unread map[string]uint64 `json:"unread"`
	// Tracked counts datagrams that belong to a connection, Potential those
	// that may, and Other those of no connection.
	Tracked   uint64 `json:"tracked"`
	Potential uint64 `json:"potential"`
	Other     uint64 `json:"other"`
	// Malformed counts long headers of a known version that do not add up,
	// Unopened Initials of a known version that do not open, and Bogus packets
	// of a known pair of endpoints that are none of its connection's.
	Malformed uint64 `json:"malformed"`
	Unopened  uint64 `json:"unopened"`
	Bogus     uint64 `json:"bogus"`
	// Glued counts datagrams that hold several that could not be told apart,
	// and Split those that could.
	Glued uint64 `json:"glued"`
	Split uint64 `json:"split"`
	// Conflicts counts IDs that a connection claimed and others had.
	Conflicts uint64 `json:"conflicts"`
	// PathOverflow, IDOverflow and ChangeOverflow count what one connection had
	// too many of.
	PathOverflow   uint64 `json:"path_overflow"`
	IDOverflow     uint64 `json:"id_overflow"`
	ChangeOverflow uint64 `json:"change_overflow"`
	// HelloErrors counts hellos that could not be put together or read, and
	// HandshakesSkipped those that were not tried for want of room.
	HelloErrors       uint64 `json:"hello_errors"`
	HandshakesSkipped uint64 `json:"handshakes_skipped"`
	// EventsLost counts events that a reader was too slow for.
	EventsLost uint64 `json:"events_lost"`
	// SourceDropped counts packets that were lost before the monitor saw them.
	SourceDropped uint64 `json:"source_dropped"`
	// FlowsEvicted counts flows that the kernel has forgotten to make room, with
	// what it had counted of them since it was last asked.
	FlowsEvicted uint64 `json:"flows_evicted"`

	// Connections counts those that are kept, by how sure it is that they are.
	// It has all confidences.
	Connections map[Confidence]int `json:"connections"`
	// Tables says how full the tables are, by name: "connections", "flows",
	// "ids", "destinations", "sources", "potential".
	Tables map[string]TableStats `json:"tables"`
}

// TableStats is the state of a table.
type TableStats struct {
	Entries int `json:"entries"`
	Limit   int `json:"limit"`
	// Evicted counts entries that made room for others, Expired those that
	// nothing was heard of.
	Evicted uint64 `json:"evicted"`
	Expired uint64 `json:"expired"`
}

func (t *table[K, V]) stats() TableStats {
	return TableStats{Entries: t.len(), Limit: t.limit, Evicted: t.evicted, Expired: t.expired}
}

// counters are those of a tracker.
type counters struct {
	Stats
	unread [decap.NumReasons]uint64
}

// stats completes the counters. t.mu is held.
func (t *Tracker) statsLocked() Stats {
	out := t.counters.Stats
	out.Unread = make(map[string]uint64, decap.NumReasons-1)
	for r := decap.Found + 1; int(r) < decap.NumReasons; r++ {
		out.Unread[r.String()] = t.counters.unread[r]
	}
	out.Connections = make(map[Confidence]int, len(confidenceNames))
	for c := range confidenceNames {
		out.Connections[Confidence(c)] = 0
	}
	for e := range t.records.all() {
		out.Connections[e.value.confidence]++
	}
	out.Tables = map[string]TableStats{
		"connections":  t.records.stats(),
		"flows":        t.flows.stats(),
		"ids":          t.ids.stats(),
		"destinations": t.destinations.stats(),
		"sources":      t.sources.stats(),
		"potential":    t.potential.stats(),
	}
	return out
}
