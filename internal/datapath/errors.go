package datapath

import (
	"errors"
	"net"
)

var (
	// ErrClosed is returned by calls on a [Program] that is closed. It wraps
	// net.ErrClosed.
	ErrClosed error = closedError{}
	// ErrConfig is wrapped by errors about a [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")
	// ErrUnsupported: this system has no XDP, or an interface has it not in
	// the way that was asked for.
	ErrUnsupported = errors.New("not supported here")
	// ErrPermission: the process lacks CAP_BPF or CAP_NET_ADMIN.
	ErrPermission = errors.New("needs CAP_BPF and CAP_NET_ADMIN")
	// ErrBusy: another program is attached to the interface, or another
	// process has what is pinned.
	ErrBusy = errors.New("in use by another")
	// ErrMTU: the interface's MTU is too large for native mode.
	ErrMTU = errors.New("the MTU is too large for native mode")
	// ErrFull: there is no room for another ID or session.
	ErrFull = errors.New("no room in the kernel's map")
)

type closedError struct{}

func (closedError) Error() string { return "program closed" }
func (closedError) Unwrap() error { return net.ErrClosed }
