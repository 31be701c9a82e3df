package relay

import (
	"errors"
	"net"
)

var (
	// ErrClosed is returned by [Server.Serve] when [Server.Close] or
	// [Server.Shutdown] has been called. It wraps net.ErrClosed.
	ErrClosed error = closedError{}

	// ErrConfig is wrapped by the errors of [New] and [Listen] about an invalid
	// [Config].
	ErrConfig = errors.New("invalid configuration")

	// ErrUnauthorized may be returned by [Config.Authorize] to refuse a token.
	// Any other error has the same effect.
	ErrUnauthorized = errors.New("invalid access token")
)

type closedError struct{}

func (closedError) Error() string { return "relay: server closed" }
func (closedError) Unwrap() error { return net.ErrClosed }
