package datapath

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is returned by methods of a closed [Program], [Quota] or [Monitor]. It
	// wraps net.ErrClosed.
	ErrClosed = fmt.Errorf("program closed: %w", net.ErrClosed)
	// ErrConfig is wrapped by errors about a [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")
	// ErrUnsupported: the system, or an interface, does not support XDP, a mode or a
	// stage.
	ErrUnsupported = errors.New("not supported")
	// ErrPermission: the process lacks CAP_BPF or CAP_NET_ADMIN.
	ErrPermission = errors.New("needs CAP_BPF and CAP_NET_ADMIN")
	// ErrBusy: another program is attached to the interface, another process uses the
	// directory of Config.Pin, or the stage has another user.
	ErrBusy = errors.New("in use")
	// ErrMTU: the interface's MTU is too large for native mode.
	ErrMTU = errors.New("the MTU is too large for native mode")
	// ErrFull: the kernel's map has no room for another entry.
	ErrFull = errors.New("the kernel's map is full")
)
