package sni

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is returned by [Server.Run] when [Server.Close] or [Server.Shutdown] has
	// been called. It wraps net.ErrClosed.
	ErrClosed = fmt.Errorf("sni: server closed: %w", net.ErrClosed)

	// ErrConfig is wrapped by errors about an invalid [Config] or [Route].
	ErrConfig = errors.New("invalid configuration")

	// ErrBusy is wrapped by the error of [Unpin] when a server uses the directory.
	ErrBusy = errors.New("in use")

	errName    = errors.New("the server name is too long")
	errNoRoute = errors.New("no route")
	errLoop    = errors.New("the upstream is this relay itself")
	errIdle    = errors.New("no bytes within the idle timeout")
	errEvicted = errors.New("too many connections without a ClientHello")
)
