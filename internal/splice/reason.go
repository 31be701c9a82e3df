package splice

import "fmt"

// Reason is a label of [Stats].
type Reason uint8

// What the kernel has done with packets of spliced connections: enum reason in bpf/maps.h.
const (
	Forwarded      Reason = iota // forwarded to the other end
	Watched                      // passed to our socket, while it was being prepared
	Copied                       // forwarded, and its acknowledgement given to our socket
	NotCopied                    // forwarded, but our socket did not get the acknowledgement
	NoNeighbor                   // passed to our socket: the link-layer address is not known
	ForwardedSYN                 // a SYN of an end that has forgotten the connection, forwarded
	PassedSYN                    // a SYN, passed to the network stack
	PassedTTL                    // passed to the network stack: the TTL is 1 or less
	Reopened                     // a SYN of a new connection with the addresses of an old one
	DroppedHold                  // dropped while the connection goes back to userspace
	DroppedTooBig                // dropped: larger than the MTU to the other end
	DroppedCE                    // dropped: a congestion mark that the other end cannot get
	BlankedOptions               // forwarded without options of an unknown layout
	Unbelieved                   // forwarded, but not noted: its numbers are outside the window
	TooBigICMP                   // an ICMP message about a forwarded packet that was too big
	Silenced                     // a packet of our socket that was not sent
	Clamped                      // a packet of our socket whose window was reduced
	EventLost                    // not a packet: the ring of events was full

	kernelReasons
)

// reasonTexts are the labels for metrics, and the descriptions, of the kernel's reasons.
var reasonTexts = [kernelReasons]struct{ label, text string }{
	Forwarded:      {"forwarded", "forwarded to the other end"},
	Watched:        {"watched", "passed to userspace before the takeover"},
	Copied:         {"copied", "forwarded, with a copy of the acknowledgement to the socket"},
	NotCopied:      {"not_copied", "forwarded, but the socket could not get the acknowledgement"},
	NoNeighbor:     {"no_neighbor", "passed to userspace: no link-layer address"},
	ForwardedSYN:   {"forwarded_syn", "SYN of an end that has forgotten the connection"},
	PassedSYN:      {"passed_syn", "SYN passed to the network stack"},
	PassedTTL:      {"passed_ttl", "TTL of 1 or less"},
	Reopened:       {"reopened", "SYN of a new connection with the addresses of an old one"},
	DroppedHold:    {"dropped_hold", "dropped on the way back to userspace"},
	DroppedTooBig:  {"dropped_too_big", "dropped: larger than the MTU to the other end"},
	DroppedCE:      {"dropped_ce", "dropped: congestion mark for an end without ECN"},
	BlankedOptions: {"blanked_options", "forwarded without options of an unknown layout"},
	Unbelieved:     {"unbelieved", "forwarded, but with numbers outside the window"},
	TooBigICMP:     {"too_big_icmp", "ICMP message: a forwarded packet was too big"},
	Silenced:       {"silenced", "packet of our socket that was not sent"},
	Clamped:        {"clamped", "packet of our socket whose window was reduced"},
	EventLost:      {"event_lost", "event that Go did not get"},
}

// String returns the reason as a label for metrics.
func (r Reason) String() string {
	switch {
	case r < kernelReasons:
		return reasonTexts[r].label
	case r < endOfReasons:
		return lifeTexts[r-kernelReasons].label
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Text describes the reason in a few words.
func (r Reason) Text() string {
	switch {
	case r < kernelReasons:
		return reasonTexts[r].text
	case r < endOfReasons:
		return lifeTexts[r-kernelReasons].text
	}
	return r.String()
}
