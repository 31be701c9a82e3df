package relay

import (
	"errors"
	"net"
)

var (
	// ErrClosed is returned by [Server.Serve] once [Server.Close] or
	// [Server.Shutdown] has been called. It wraps net.ErrClosed.
	ErrClosed error = closedError{}

	// ErrConfig is wrapped by the errors of [New] and [Listen] about a
	// [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")

	// ErrUnauthorized is what [Config.Authorize] returns for a token that
	// opens no session. Other errors have the same effect.
	ErrUnauthorized = errors.New("token opens no session here")
)

type closedError struct{}

func (closedError) Error() string { return "relay: server closed" }
func (closedError) Unwrap() error { return net.ErrClosed }
