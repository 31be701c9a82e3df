package datapath

import "net/netip"

// NoteSize bounds a note on a session ([Program.PutNote]), in bytes. A pinned
// program has room for one for each session.
const NoteSize = 128

// Route is who is behind a connection ID.
type Route struct {
	// Session is the index of a session, and Leg the one of its two legs
	// that the ID leads to: 0 or 1.
	Session uint32
	Leg     uint8
	// Counter is that of the ID.
	Counter uint64
}

// Leg is one end of a session.
type Leg struct {
	// Remote is where it is, Local where it sees the relay. A leg that lacks
	// either is nowhere.
	Remote, Local netip.AddrPort
}

// Valid says whether packets can go to the leg.
func (l Leg) Valid() bool {
	return l.Remote.IsValid() && l.Local.IsValid() && l.Remote.Addr().Is4() == l.Local.Addr().Is4()
}

// Traffic is what the kernel has forwarded to a leg.
type Traffic struct {
	Packets, Bytes uint64 // of UDP payload
}

// Event tells that a leg has turned to an ID that is due: see [Program.SetDue].
type Event struct {
	// Session and Leg are as in [Route].
	Session uint32
	Leg     uint8
	// Counter is the low bits of the ID's.
	Counter uint32
}
