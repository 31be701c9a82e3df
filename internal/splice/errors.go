package splice

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is returned by methods of a closed [Program]. It wraps net.ErrClosed.
	ErrClosed = fmt.Errorf("program closed: %w", net.ErrClosed)
	// ErrConfig is wrapped by errors about a [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")
	// ErrUnsupported: the system, or an interface, cannot splice connections.
	ErrUnsupported = errors.New("not supported")
	// ErrPermission: the process lacks CAP_BPF, CAP_NET_ADMIN or CAP_PERFMON.
	ErrPermission = errors.New("needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
	// ErrBusy: the program is already attached to the interface, or another process uses the
	// directory of Config.Pin.
	ErrBusy = errors.New("in use")
)
