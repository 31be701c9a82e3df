package cid

import (
	"context"
	"iter"
	"time"
)

// Owner is who may refresh or delete what it has put into a [Store].
type Owner [16]byte

// Association says who is behind an ID: a leg of a session at a relay.
type Association struct {
	// Owner put the ID there.
	Owner Owner
	// Session is the relay's number for the session.
	Session uint64
	// Counter is that of the ID, or the largest uint64 if it was not made
	// from a counter.
	Counter uint64
	// Leg is 0 or 1: which end of the session the ID leads to.
	Leg uint8
}

// Entry is an ID in a [Store].
type Entry struct {
	ID          ID
	Association Association
	Expires     time.Time
}

// Store keeps who is behind the IDs that a relay forwards. Implementations are
// safe for concurrent use, and pass [storetest.Run].
//
// [storetest.Run]: https://pkg.go.dev/github.com/quicway/quicway/cid/storetest#Run
type Store interface {
	// Put says who is behind an ID for the next ttl, or says so again. It
	// returns ErrConflict if a live ID is another owner's, and may return
	// ErrFull.
	Put(ctx context.Context, id ID, a Association, ttl time.Duration) error
	// Get returns who is behind an ID, or ErrNotFound. It is called for
	// packets, and should not allocate.
	Get(ctx context.Context, id ID) (Association, error)
	// Delete forgets an ID. It returns ErrNotFound if it is not there, or
	// ErrConflict if it is another owner's.
	Delete(ctx context.Context, id ID, owner Owner) error
	// All yields the live IDs. Those that come or go meanwhile may be
	// missing. It stops after an error.
	All(ctx context.Context) iter.Seq2[Entry, error]
}
