package relay

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is returned by [Server.Run] when [Server.Close] or
	// [Server.Shutdown] has been called. It wraps net.ErrClosed.
	ErrClosed = fmt.Errorf("relay: server closed: %w", net.ErrClosed)

	// ErrConfig is wrapped by the errors of [New] and [Listen] about an invalid
	// [Config].
	ErrConfig = errors.New("invalid configuration")

	// ErrUnauthorized may be returned by [Config.Authorize] to refuse a token.
	// Any other error has the same effect.
	ErrUnauthorized = errors.New("invalid access token")
)
