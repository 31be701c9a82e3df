package cid

import "errors"

var (
	// ErrLength is wrapped by the errors about an ID of more than 20 bytes.
	ErrLength = errors.New("connection ID is longer than 20 bytes")
	// ErrText is wrapped by the errors about text that is not the text form of an
	// ID or a Key.
	ErrText = errors.New("malformed text")
	// ErrConflict is returned by a [Store] in which the ID belongs to another
	// owner.
	ErrConflict = errors.New("connection ID belongs to another owner")
	// ErrFull is returned by a [Store] that has no room for another ID.
	ErrFull = errors.New("store is full")
)
