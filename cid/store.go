package cid

import "time"

// Owner identifies a leg to a [Store]: only the owner that has put an ID may put it again or
// delete it.
type Owner [16]byte

// Association says which leg an ID leads to.
type Association struct {
	// Owner is the owner that has put the ID.
	Owner Owner
	// Session is the relay's number for the session. The numbers begin with a random
	// one each time that a relay starts, so that an association from another relay,
	// or from before a restart, fits no session.
	Session uint64
	// Counter is the counter of the ID, or the largest uint64 if the ID was not made
	// from a counter.
	Counter uint64
	// Leg is the end of the session that the ID leads to: 0 is the dialer, 1 the
	// accepter.
	Leg uint8
}

// Store holds which leg each connection ID leads to, for the IDs that a relay forwards.
//
// The forwarding loops ask the Store for each run of packets, and wait for the answer. So a
// Store is in the memory of the process, and never waits for a network, a disk, or another
// process. That is why its methods take no context, and Get returns no error. To have the
// IDs elsewhere as well, copy what is put, and write the copy from a goroutine of its own.
//
// The relay does not trust a Store: it compares the session number, the leg and the owner
// that Get returns with its own session, and treats the ID as unknown if they do not agree.
// So several relays, and a relay before and after a restart, may use the same Store, and
// packets still only pass between the two legs of one session.
//
// Implementations must be safe for concurrent use, and must pass [storetest.Run].
//
// [storetest.Run]: https://pkg.go.dev/github.com/quicway/quicway/cid/storetest#Run
type Store interface {
	// Put stores an association for the next ttl, or stores it again. It returns
	// ErrConflict if another owner has put the ID and it has not expired, and may
	// return ErrFull. The relay counts the error, and the ID remains unknown.
	Put(id ID, a Association, ttl time.Duration) error
	// Get returns the association of an ID, and whether there is one that has not
	// expired. Anybody can cause a call by sending a packet, so it should not
	// allocate.
	Get(id ID) (Association, bool)
	// Delete removes an ID if the owner has put it.
	Delete(id ID, owner Owner)
}
