package cid

import "time"

// Owner is who may refresh or delete what it has put into a [Store].
type Owner [16]byte

// Association says who is behind an ID: a leg of a session at a relay.
type Association struct {
	// Owner put the ID there.
	Owner Owner
	// Session is the relay's number for the session. It begins anywhere each
	// time that a relay starts, so that what another relay has put, or one
	// before a restart, is of no session of this one.
	Session uint64
	// Counter is that of the ID, or the largest uint64 if it was not made
	// from a counter.
	Counter uint64
	// Leg is 0 or 1: which end of the session the ID leads to.
	Leg uint8
}

// Store is the memory in which a relay keeps who is behind the IDs that it
// forwards: what this process knows, and no network, disk, or other process. It
// is asked for every run of packets by the loops that forward them, which wait
// for the answer. So a Store never waits for anything but its own short locks:
// there is no context that could end a call, and no error by which Get could
// say that it does not know. Whoever wants to know elsewhere which IDs there are
// takes a copy of what is put, and writes it from a goroutine of its own.
//
// A Store is not trusted with who may send where. The relay compares what Get
// says with the session that it has itself: the number, the leg and the owner.
// What does not agree is unknown to it. So several relays, and one before and
// after a restart, may use one Store, and packets still pass between the legs of
// one session only.
//
// Implementations are safe for concurrent use, and pass [storetest.Run].
//
// [storetest.Run]: https://pkg.go.dev/github.com/quicway/quicway/cid/storetest#Run
type Store interface {
	// Put says who is behind an ID for the next ttl, or says so again. It
	// returns ErrConflict if a live ID is another owner's, and may return
	// ErrFull. The relay counts an error, and the ID stays unknown.
	Put(id ID, a Association, ttl time.Duration) error
	// Get returns who is behind an ID, and whether anybody is. It is called
	// for packets of strangers, too, and should not allocate.
	Get(id ID) (Association, bool)
	// Delete forgets an ID, if it is there and the owner's.
	Delete(id ID, owner Owner)
}
