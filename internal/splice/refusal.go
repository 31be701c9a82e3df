package splice

// The reasons why [Program.Take] refuses connections. None of them changes the connections.
const (
	// RefusedProtocol: a socket is not plain TCP, as with MPTCP.
	RefusedProtocol Reason = kernelReasons + iota
	// RefusedFamily: one connection is over IPv4, and the other one over IPv6.
	RefusedFamily
	// RefusedAddress: an address is link-local, or needs a zone.
	RefusedAddress
	// RefusedMissing: the network namespace of the program has no such connection.
	RefusedMissing
	// RefusedState: a connection is not established, or an end has finished or reset it.
	RefusedState
	// RefusedProtected: segments are signed (TCP-MD5, TCP-AO), or a layer above TCP is in the
	// kernel (kTLS).
	RefusedProtected
	// RefusedTimestamps: only one connection has timestamps, or one counts microseconds.
	RefusedTimestamps
	// RefusedSACK: only one connection has selective acknowledgements.
	RefusedSACK
	// RefusedECN: a connection has Accurate ECN (RFC 9768), whose counters cannot be
	// translated.
	RefusedECN
	// RefusedOptions: an end uses TCP options that the kernel's part does not know.
	RefusedOptions
	// RefusedMSS: an end may send segments that are too large for the other connection.
	RefusedMSS
	// RefusedLoopback: an end is on this host.
	RefusedLoopback
	// RefusedInterface: the packets of a connection use an interface to which the program is
	// not attached.
	RefusedInterface
	// RefusedNeighbor: the link-layer address of an end, or of the gateway to it, is unknown.
	RefusedNeighbor
	// RefusedFull: there are Config.MaxPairs pairs.
	RefusedFull
	// RefusedSocket: the kernel refuses an option of a socket, or the socket is closed.
	RefusedSocket
	// RefusedBusy: the connections did not become quiet in time.
	RefusedBusy
	// RefusedCanceled: the context has ended before the takeover.
	RefusedCanceled

	// The reasons why a pair should go back to userspace: see [Pair.Wants].

	// WantedTooBig: a packet was too big for the path to the other end.
	WantedTooBig
	// WantedOptions: an end uses TCP options that the kernel's part does not know.
	WantedOptions
	// WantedTTL: a packet has crossed as many routers as it may.
	WantedTTL
	// WantedInterface: an interface was deleted, or is being detached.
	WantedInterface

	// The reasons why the kernel's part has given up a pair.

	// LostPending: an end did not answer during a takeover, so that both were reset.
	LostPending
	// LostAddress: the addresses of a pair of an earlier process are in use.
	LostAddress
	// LostInterrupted: the earlier process has ended during a takeover.
	LostInterrupted

	// What has become of pairs.

	// Taken counts the pairs that the kernel has taken over.
	Taken
	// Ended, WasReset and WentBack count how pairs have ended: [Finished], [Reset], [CameBack].
	Ended
	WasReset
	WentBack
	// BackFailed counts the ways back that failed: the pair went on in the kernel.
	BackFailed

	endOfReasons
)

// lifeTexts are the labels for metrics, and the descriptions, of the reasons of Go.
var lifeTexts = [endOfReasons - kernelReasons]struct{ label, text string }{
	RefusedProtocol - kernelReasons:   {"refused_protocol", "a socket is not plain TCP"},
	RefusedFamily - kernelReasons:     {"refused_family", "one connection is over IPv4, one over IPv6"},
	RefusedAddress - kernelReasons:    {"refused_address", "an address is link-local"},
	RefusedMissing - kernelReasons:    {"refused_missing", "no such connection in the network namespace"},
	RefusedState - kernelReasons:      {"refused_state", "a connection is not established, or is closing"},
	RefusedProtected - kernelReasons:  {"refused_protected", "signed segments, or a layer above TCP in the kernel"},
	RefusedTimestamps - kernelReasons: {"refused_timestamps", "unequal timestamps"},
	RefusedSACK - kernelReasons:       {"refused_sack", "unequal selective acknowledgements"},
	RefusedECN - kernelReasons:        {"refused_ecn", "Accurate ECN"},
	RefusedOptions - kernelReasons:    {"refused_options", "unknown TCP options"},
	RefusedMSS - kernelReasons:        {"refused_mss", "segments too large for the other connection"},
	RefusedLoopback - kernelReasons:   {"refused_loopback", "an end on this host"},
	RefusedInterface - kernelReasons:  {"refused_interface", "an interface without the program"},
	RefusedNeighbor - kernelReasons:   {"refused_neighbor", "no link-layer address"},
	RefusedFull - kernelReasons:       {"refused_full", "no room for another pair"},
	RefusedSocket - kernelReasons:     {"refused_socket", "the kernel refused an option of a socket"},
	RefusedBusy - kernelReasons:       {"refused_busy", "not quiet in time"},
	RefusedCanceled - kernelReasons:   {"refused_canceled", "the context ended before the takeover"},
	WantedTooBig - kernelReasons:      {"wanted_too_big", "a packet was too big for the path"},
	WantedOptions - kernelReasons:     {"wanted_options", "an end uses unknown TCP options"},
	WantedTTL - kernelReasons:         {"wanted_ttl", "a packet has crossed as many routers as it may"},
	WantedInterface - kernelReasons:   {"wanted_interface", "an interface is gone"},
	LostPending - kernelReasons:       {"lost_pending", "an end did not answer during a takeover"},
	LostAddress - kernelReasons:       {"lost_address", "the addresses of an earlier process's pair are in use"},
	LostInterrupted - kernelReasons:   {"lost_interrupted", "the earlier process ended during a takeover"},
	Taken - kernelReasons:             {"taken", "taken over by the kernel"},
	Ended - kernelReasons:             {"ended", "ended by both ends"},
	WasReset - kernelReasons:          {"was_reset", "reset by an end, or by us"},
	WentBack - kernelReasons:          {"went_back", "given back to userspace"},
	BackFailed - kernelReasons:        {"back_failed", "a way back that failed"},
}

// Refusal is the error of [Program.Take] for connections that stay in userspace, unchanged. If the
// reason is LostPending, they were reset.
type Refusal struct {
	Reason Reason
	Err    error // nil, or more about the reason
}

// Error implements the error interface.
func (r *Refusal) Error() string {
	if r.Err == nil {
		return "splice: " + r.Reason.String()
	}
	return "splice: " + r.Reason.String() + ": " + r.Err.Error()
}

// Unwrap returns Err.
func (r *Refusal) Unwrap() error { return r.Err }
