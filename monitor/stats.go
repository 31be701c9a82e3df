package monitor

import "github.com/quicway/quicway/internal/decap"

// Stats counts since the tracker was made.
type Stats struct {
	// Packets are all that came, and Datagrams the UDP datagrams in them, which
	// are more where the system has put several together.
	Packets, Datagrams uint64
	// Unread counts packets that hold no datagram, by reason. It has all
	// reasons.
	Unread map[string]uint64
	// Tracked counts datagrams that belong to a connection, Potential those
	// that may, and Other those of no connection.
	Tracked, Potential, Other uint64
	// Malformed counts long headers of a known version that do not add up,
	// Unopened Initials of a known version that do not open, and Bogus packets
	// of a known pair of endpoints that are none of its connection's.
	Malformed, Unopened, Bogus uint64
	// FlowsEvicted counts flows that the kernel has forgotten to make room, with
	// what it had counted of them since it was last asked.
	FlowsEvicted uint64
	// Glued counts datagrams that hold several that could not be told apart,
	// and Split those that could.
	Glued, Split uint64
	// Conflicts counts IDs that a connection claimed and others had.
	Conflicts uint64
	// PathOverflow, IDOverflow and ChangeOverflow count what one connection had
	// too many of.
	PathOverflow, IDOverflow, ChangeOverflow uint64
	// HelloErrors counts hellos that could not be put together or read, and
	// HandshakesSkipped those that were not tried for want of room.
	HelloErrors, HandshakesSkipped uint64
	// EventsLost counts events that a reader was too slow for.
	EventsLost uint64
	// SourceDropped counts packets that were lost before the monitor saw them.
	SourceDropped uint64

	// Tables says how full the tables are, by name: "connections", "flows",
	// "ids", "destinations", "sources", "potential".
	Tables map[string]TableStats
}

// TableStats is the state of a table.
type TableStats struct {
	Entries, Limit int
	// Evicted counts entries that made room for others, Expired those that
	// nothing was heard of.
	Evicted, Expired uint64
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
