package monitor

import "errors"

var (
	// ErrFormat is wrapped by errors about a file or stream that is neither pcap
	// nor pcapng.
	ErrFormat = errors.New("neither pcap nor pcapng")
	// ErrNotSupported is wrapped by the errors of [Capture] on systems other than
	// Linux.
	ErrNotSupported = errors.New("live capture is not supported on this system")
	// ErrPermission is wrapped by the errors of [Capture] without CAP_NET_RAW. They
	// also wrap the system's error.
	ErrPermission = errors.New("live capture needs CAP_NET_RAW (run as root)")
	// ErrRunning is wrapped by the error of [Monitor.Run] when it was called before.
	ErrRunning = errors.New("Run was called before")
	// ErrConfig is wrapped by the errors of [New] and [NewTracker] about an invalid
	// [Config], or a nil source.
	ErrConfig = errors.New("invalid configuration")
	// ErrFilter is wrapped by the errors of [ParseFilter].
	ErrFilter = errors.New("invalid filter")
)
