package datapath

import "net/netip"

// NoteSize is the largest size of the note of a session ([Relay.PutNote]), in bytes.
const NoteSize = 128

// Route is the leg that a connection ID leads to.
type Route struct {
	// Session is the index of the session, and Leg is 0 or 1.
	Session uint32
	Leg     uint8
	// Counter is the counter of the ID. The kernel keeps only its low [CounterBits] bits.
	Counter uint64
}

// CounterBits is how many bits of the counter of an ID the kernel keeps.
const CounterBits = 7

// Leg is one of the two legs of a session. The zero Leg has no addresses.
type Leg struct {
	// Remote is the address of the leg, and Local the address of the relay that the leg
	// uses.
	Remote, Local netip.AddrPort
}

// Valid says whether both addresses are set and of the same family.
func (l Leg) Valid() bool {
	return l.Remote.IsValid() && l.Local.IsValid() && l.Remote.Addr().Is4() == l.Local.Addr().Is4()
}

// Traffic counts what the kernel has forwarded to a leg. Bytes counts UDP payloads.
type Traffic struct{ Packets, Bytes uint64 }

// Event reports that packets to a leg carry an ID that is due: see [Relay.SetDue].
type Event struct {
	// Session and Leg are as in [Route].
	Session uint32
	Leg     uint8
	// Counter is the low 16 bits of the counter of the ID.
	Counter uint16

	version uint16 // of the leg: bpf/legs.h
}
