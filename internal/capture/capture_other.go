//go:build !linux

package capture

// Socket is not supported on this system.
type Socket struct{}

// Open returns ErrNotSupported.
func Open([]string) (*Socket, error) { return nil, ErrNotSupported }

// Read is never called.
func (*Socket) Read(*Frame) error { return ErrNotSupported }

// Dropped is never called.
func (*Socket) Dropped() uint64 { return 0 }

// Close is never called.
func (*Socket) Close() error { return nil }
