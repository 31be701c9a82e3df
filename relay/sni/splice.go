package sni

import (
	"fmt"
	"slices"
	"time"
)

// Defaults of Splice.
const (
	DefaultSpliceConnections = 16384
	DefaultSpliceBytes       = 1 << 20
	DefaultSpliceAge         = 200 * time.Millisecond
)

// Limits of Splice.MaxSegment: what all hosts take (RFC 9293 §3.7.1), and what Linux takes.
const minMaxSeg, maxMaxSeg = 536, 32767

// Method is how the kernel relays a connection.
type Method uint8

const (
	// TCX forwards the packets of a connection from interface to interface, rewritten, by
	// programs at the interfaces. It needs Linux 6.6 or newer, and CAP_BPF, CAP_NET_ADMIN
	// and CAP_PERFMON.
	TCX Method = iota
	// Sockmap relays between the two sockets of a connection, by a program of type SK_SKB.
	// It needs CAP_BPF and CAP_NET_ADMIN, and no Interfaces. There is no way back. The
	// kernel is tested first: one that lets a client fill its memory is refused, as Linux
	// 6.18 is.
	Sockmap

	numMethods
)

var methodNames = [numMethods]string{TCX: "tcx", Sockmap: "sockmap"}

// String returns the name of the method.
func (m Method) String() string {
	if m < numMethods {
		return methodNames[m]
	}
	return fmt.Sprintf("method %d", uint8(m))
}

// Splice lets the kernel relay connections that are worth it. Such a connection begins in
// userspace, as all do. When it has relayed MinBytes and is MinAge old, its policy is asked.
// If the policy agrees, the kernel takes over, between two bytes of the stream, and Go
// has no more work with the connection. When the policy disagrees later, userspace takes
// the connection back. Both ends notice none of this.
//
// A connection that the kernel cannot relay stays in userspace, and [SpliceStats] counts why.
// So do all connections if the system has no such kernel path, the process lacks the
// privileges, or another process uses it: this is logged once as a warning, and is in
// SpliceStats.Off.
type Splice struct {
	// Method is how the kernel relays. The zero value is TCX.
	Method Method
	// Interfaces lists the names of all network interfaces that connections to clients and
	// to upstreams use. They must be Ethernet, and not loopback. TCX needs one at least.
	Interfaces []string
	// Pin is a directory on a BPF file system, such as /sys/fs/bpf/quicway-sni. With Pin
	// the connections in the kernel go on when the process ends, however it ends, also after
	// [Server.Close] and [Server.Shutdown]. The next server with the same Pin adopts them.
	// Start it soon: a connection that was on its way back to userspace when the process was
	// killed waits for it, and until then other connections of this host cannot use the
	// addresses of those in the kernel. Only root and the process's user may be able to write
	// to the directory. [Unpin] removes what is left there. Empty means that both ends get a reset
	// when the process ends.
	Pin string

	// MaxSegment is the greatest number of bytes, without headers and options, that the relay
	// asks clients and upstreams to send in a segment. The kernel cannot relay a connection
	// one of whose ends asks for less, as clients behind PPPoE or a VPN do. 1360 admits
	// nearly all of them, and costs all others a few more packets. 0 is what fits the
	// smallest MTU of Interfaces.
	MaxSegment int

	// MaxConnections bounds the connections in the kernel. Others stay in userspace. 0 is
	// DefaultSpliceConnections.
	MaxConnections int
	// MinBytes is the number of bytes, of both directions together, that a connection has to
	// relay in userspace first. 0 is DefaultSpliceBytes.
	MinBytes int64
	// MinAge is the age that a connection has to have first. 0 is DefaultSpliceAge.
	MinAge time.Duration

	// Policy decides about connections whose route has no Policy. nil is DefaultPolicy.
	Policy Policy
}

func (s *Splice) withDefaults() *Splice {
	if s == nil {
		return nil
	}
	out := *s
	setDefault(&out.MaxConnections, DefaultSpliceConnections)
	setDefault(&out.MinBytes, DefaultSpliceBytes)
	setDefault(&out.MinAge, DefaultSpliceAge)
	if out.Policy == nil {
		out.Policy = DefaultPolicy
	}
	return &out
}

func (s *Splice) validate() error {
	switch {
	case s == nil:
		return nil
	case s.Method >= numMethods:
		return fmt.Errorf("%w: Splice.Method is an unknown %v", ErrConfig, s.Method)
	case s.Method == TCX && len(s.Interfaces) == 0:
		return fmt.Errorf("%w: Splice.Interfaces is empty", ErrConfig)
	case slices.Contains(s.Interfaces, ""):
		return fmt.Errorf("%w: Splice.Interfaces has an empty name", ErrConfig)
	case s.MaxSegment != 0 && (s.MaxSegment < minMaxSeg || s.MaxSegment > maxMaxSeg):
		return fmt.Errorf("%w: Splice.MaxSegment is %d, want 0, or %d to %d", ErrConfig, s.MaxSegment, minMaxSeg, maxMaxSeg)
	case s.MaxConnections < 0:
		return fmt.Errorf("%w: Splice.MaxConnections is %d, want a positive number", ErrConfig, s.MaxConnections)
	case s.MinBytes < 0:
		return fmt.Errorf("%w: Splice.MinBytes is %d, want a positive number", ErrConfig, s.MinBytes)
	case s.MinAge < 0:
		return fmt.Errorf("%w: Splice.MinAge is %v, want a positive time", ErrConfig, s.MinAge)
	}
	return nil
}
