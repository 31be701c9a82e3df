package sni

import (
	"context"
	"syscall"
)

// The kernel forwards a segment as it is, so that each side may only get segments that fit the
// other one. The relay therefore announces the same maximum segment size (RFC 9293 §3.7.1)
// on all its connections: Splice.MaxSegment, or the one that fits the smallest MTU of the
// interfaces.

const (
	headers4 = 40 // bytes of IPv4 and TCP headers
	headers6 = 60 // of IPv6
)

// maxSegs are maximum segment sizes, without TCP options, by address family.
type maxSegs struct {
	v4, v6 int
	equal  bool // the MTUs of all interfaces are
}

// maxSegsFor returns what fits the interfaces' MTUs. most bounds it, unless it is 0.
func maxSegsFor(mtus []int, most int) maxSegs {
	if len(mtus) == 0 {
		return maxSegs{most, most, true}
	}
	mtu, equal := mtus[0], true
	for _, m := range mtus[1:] {
		equal = equal && m == mtu
		mtu = min(mtu, m)
	}
	if most == 0 {
		most = mtu
	}
	return maxSegs{min(mtu-headers4, most), min(mtu-headers6, most), equal}
}

// ofListener returns the size for a listener, which may be one for both families. If the
// interfaces' MTUs are equal, the system bounds that of IPv6 itself.
func (m maxSegs) ofListener(v4only bool) int {
	if m.equal || v4only {
		return m.v4
	}
	return m.v6
}

// control sets the size of a connection to an upstream, before it is dialed.
func (m maxSegs) control(_ context.Context, network, _ string, conn syscall.RawConn) error {
	if network == "tcp6" {
		return setMaxSeg(conn, m.v6)
	}
	return setMaxSeg(conn, m.v4)
}
