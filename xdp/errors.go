package xdp

import "github.com/quicway/quicway/internal/datapath"

var (
	// ErrClosed is returned by methods of a closed [Program]. It wraps net.ErrClosed.
	ErrClosed = datapath.ErrClosed
	// ErrConfig is wrapped by errors about a [Config] that cannot work.
	ErrConfig = datapath.ErrConfig
	// ErrUnsupported: the system, or an interface, does not support XDP or the mode.
	ErrUnsupported = datapath.ErrUnsupported
	// ErrPermission: the process lacks CAP_BPF or CAP_NET_ADMIN.
	ErrPermission = datapath.ErrPermission
	// ErrBusy: another program is attached to the interface, or another process uses the
	// directory of Config.Pin.
	ErrBusy = datapath.ErrBusy
	// ErrMTU: the interface's MTU is too large for native mode.
	ErrMTU = datapath.ErrMTU
)
