package sni

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/netip"

	"github.com/quicway/quicway/internal/splice"
)

// kernelPath is what relays connections in the kernel. Its methods may be called concurrently.
type kernelPath interface {
	// take moves a connection into the kernel, while the copy loops go on. injected is
	// the number of bytes that were sent to the upstream before those of the client,
	// modulo 2^64. The error is a *notTaken: the connection stays where it is. The call
	// ends by itself, and sooner if ctx does.
	take(ctx context.Context, client, upstream *net.TCPConn, injected uint64) (kernelPair, error)
	// adopted yields the connections that another process has left in the kernel.
	adopted() iter.Seq[adoptedPair]
	// pinned reports whether the kernel goes on relaying when the process ends.
	pinned() bool
	// close releases the kernel path. There are no connections left, unless it is pinned.
	close() error
}

// kernelPair is a connection in the kernel.
type kernelPair interface {
	// done is closed when the connection has ended or has come back.
	done() <-chan struct{}
	// end says how, after done.
	end() pairEnd
	// traffic makes no system call. It is exact after done.
	traffic() traffic
	// wants gets the reasons for which the kernel asks for the way back. nil means never.
	wants() <-chan splice.Reason
	// back takes the connection back into userspace, or returns its sockets if end is
	// endBack. After an error it goes on in the kernel.
	back(ctx context.Context) (client, upstream *net.TCPConn, err error)
	// abort resets both ends. done is closed then.
	abort() error
}

// adoptedPair is a connection that another process has left in the kernel.
type adoptedPair struct {
	pair             kernelPair
	client, upstream netip.AddrPort
}

// pairEnd is how a connection has left the kernel.
type pairEnd uint8

const (
	endFinished pairEnd = iota // both directions have ended
	endReset                   // by one of the ends, or by abort
	endBack                    // it is in userspace again
	endLost                    // the kernel has lost it, and both ends are reset
)

// traffic is what the kernel has relayed for a connection.
type traffic struct{ fromClient, fromUpstream sideTraffic }

// sideTraffic is what has come from one end. Bytes are those of the stream, each counted
// once; sent has those that came again as well.
type sideTraffic struct{ bytes, sent, again uint64 }

// notTaken is why the kernel has not taken a connection.
type notTaken struct {
	reason string // fit for the label of a metric
	final  bool   // another attempt would fail as well
	err    error
}

func (e *notTaken) Error() string { return e.reason + ": " + e.err.Error() }

func (e *notTaken) Unwrap() error { return e.err }

// errNoKernel is wrapped by errors of openKernel that leave the connections in userspace.
var errNoKernel = errors.New("connections stay in userspace")
