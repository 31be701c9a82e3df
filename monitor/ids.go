package monitor

import (
	"encoding/binary"
	"slices"

	"github.com/quicway/quicway/internal/wire"
)

// minLookup is the shortest ID that is looked up for datagrams between unknown
// endpoints: shorter ones match by chance.
const minLookup = 4

// idTable leads from connection IDs to connections.
type idTable struct {
	table[ID, owners]
	lengths  [2]uint32              // of the IDs of either side, ever: bit n is set for IDs of n bytes
	starts   [1 << startBits]uint32 // how many IDs have such a start, see startOf
	counters *counters
}

// owner is a connection that an ID belongs to: packets with the ID go to that
// side of it.
type owner struct {
	conn *connection
	side wire.Side
}

// owners are the connections that an ID belongs to, the first one first: several
// if a connection was captured at two places, or claims another's ID.
type owners struct {
	list  []owner
	first [1]owner // the array of list while there is only one
}

func (x *idTable) init(limit int, counters *counters) {
	x.table.init(limit, func(e *entry[ID, owners], _ Reason) { x.countStart(e.key, -1) })
	x.counters = counters
}

// add adds an owner of an ID. If the ID has too many the earlier ones stay.
func (x *idTable) add(id ID, o owner, now int64) {
	e := x.get(id, now)
	if e == nil {
		e = x.put(id, owners{}, now)
		x.countStart(id, 1)
	}
	for _, have := range e.value.list {
		if have.conn == o.conn {
			return
		}
	}
	if len(e.value.list) > 0 {
		x.counters.Conflicts++
	}
	if len(e.value.list) < maxOwners {
		e.value.list = appendFew(e.value.list, &e.value.first, o)
	}
}

// forget removes a connection from the owners of an ID.
func (x *idTable) forget(id ID, c *connection) {
	e := x.peek(id)
	if e == nil {
		return
	}
	e.value.list = slices.DeleteFunc(e.value.list, func(o owner) bool { return o.conn == c })
	if len(e.value.list) == 0 {
		x.remove(id)
		x.countStart(id, -1)
	}
}

// startBits is the size of a start.
const startBits = 14

// startOf returns a number for the first bytes of an ID that is looked up.
func startOf(b []byte) uint32 {
	return binary.LittleEndian.Uint32(b[:minLookup]) * 0x9e3779b1 >> (32 - startBits)
}

// countStart counts the start of an ID that was added, or removed.
func (x *idTable) countStart(id ID, n int32) {
	if id.len >= minLookup {
		x.starts[startOf(id.bytes[:])] += uint32(n)
	}
}

// find finds the owner of the ID of a short header that goes to a side, and the
// ID. It tries all lengths whose bit is set, none of them less than minLookup, unless no ID begins as
// the header's does.
func (x *idTable) find(a *arrival, side wire.Side, lengths uint32) (owner, ID) {
	if len(a.payload) < 1+minLookup || x.starts[startOf(a.payload[1:])] == 0 {
		return owner{}, ID{}
	}
	for n := minLookup; lengths>>n != 0; n++ {
		if lengths>>n&1 == 0 || len(a.payload) < n+minShort {
			continue
		}
		id := idOf(a.payload[1 : 1+n])
		e := x.peek(id)
		if e == nil {
			continue
		}
		if o, ok := e.value.best(a, side); ok {
			return o, id
		}
	}
	return owner{}, ID{}
}

// best returns the owner whose addresses have most in common with an arrival that
// goes to a side.
func (o *owners) best(a *arrival, side wire.Side) (best owner, ok bool) {
	rank := 0
	client, server := clientAndServer(a.datagram, side)
	for _, have := range o.list {
		if have.side != side {
			continue
		}
		score := 1
		for _, p := range have.conn.paths {
			switch {
			case p.server() == server:
				score = max(score, 4)
			case p.client() == client:
				score = max(score, 3)
			case p.client().IP == client.IP || p.server().IP == server.IP:
				score = max(score, 2)
			}
		}
		if score > rank {
			best, ok, rank = have, true, score
		}
	}
	return best, ok
}
