package monitor

import "errors"

var (
	// ErrFormat: a file or stream is neither pcap nor pcapng.
	ErrFormat = errors.New("neither pcap nor pcapng")
	// ErrNotSupported: live capture needs Linux.
	ErrNotSupported = errors.New("live capture is not supported on this system")
	// ErrPermission: live capture needs CAP_NET_RAW. The error also wraps the
	// system's own.
	ErrPermission = errors.New("live capture needs CAP_NET_RAW (run as root)")
	// ErrRunning: Run has been called before.
	ErrRunning = errors.New("monitor has been run before")
	// ErrConfig is wrapped by the errors of [New] and [NewTracker] about a
	// [Config] that cannot work.
	ErrConfig = errors.New("invalid configuration")
)
