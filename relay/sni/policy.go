package sni

import "time"

// Candidate is a connection that the kernel may relay, or relays already.
type Candidate struct {
	Connection
	// Age is the time since the connection was accepted.
	Age time.Duration
	// ClientRTT and UpstreamRTT are the smoothed round-trip times of the two sides. While
	// the kernel relays they are those of the time before.
	ClientRTT, UpstreamRTT time.Duration
	// Retransmitted is the share of the data, from 0 to 1, that was sent again or came out
	// of order, on both sides and in both directions. It is about the time since the
	// policy was asked last. In userspace it is a share of the segments, and in the kernel
	// of the bytes.
	Retransmitted float64
}

// Policy reports whether the kernel should relay a connection. It is asked about connections
// in userspace, and about once a second about those in the kernel: Connection.InKernel
// tells which. After a refusal it is asked again after a second, then two, up to a minute.
// After a connection has come back from the kernel, it is asked again after ten seconds,
// and each further time after twice as long, up to ten minutes.
//
// A policy must not block: one goroutine asks all policies of a server. The Candidate may
// not be used after the policy has returned.
type Policy func(c *Candidate) bool

// Limits of DefaultPolicy.
const (
	nearRTT = 5 * time.Millisecond // sum of both sides

	// Shares of retransmitted data from which a connection does not go into the kernel,
	// or comes back.
	nearEnter, nearLeave = 0.001, 0.005
	farLeave             = 0.0005
)

// DefaultPolicy lets the kernel relay connections where nothing is lost, and near ones, whose
// round-trip times are at most 5 ms together, where little is. In the kernel a lost segment
// is sent again over the whole path from client to upstream, and both ends slow down for
// it. Userspace sends it again over its own side only, which is several times faster on a
// long path that loses packets.
//
// A near connection goes into the kernel if less than 0.1 % was retransmitted, and comes
// back from 0.5 %. Another one goes if nothing was retransmitted, and comes back from
// 0.05 %.
func DefaultPolicy(c *Candidate) bool {
	near := c.ClientRTT+c.UpstreamRTT <= nearRTT
	switch {
	case c.InKernel && near:
		return c.Retransmitted < nearLeave
	case c.InKernel:
		return c.Retransmitted < farLeave
	case near:
		return c.Retransmitted < nearEnter
	}
	return c.Retransmitted == 0
}

// Never is a [Policy] that leaves connections in userspace.
func Never(*Candidate) bool { return false }

// Always is a [Policy] that lets the kernel relay whatever it can.
func Always(*Candidate) bool { return true }

// pauses are the times between two questions to a policy.
type pauses struct {
	inKernel                 time.Duration // about a connection in the kernel
	minRefused, maxRefused   time.Duration // after a refusal, and after a takeover that has failed
	minReturned, maxReturned time.Duration // after a way back
}

var defaultPauses = pauses{
	inKernel:   time.Second,
	minRefused: time.Second, maxRefused: time.Minute,
	minReturned: 10 * time.Second, maxReturned: 10 * time.Minute,
}

// pause is a time that doubles each time that it is used.
type pause struct{ wait time.Duration }

// next returns the time to wait: shortest at first, then twice as long each time, longest at
// most.
func (p *pause) next(shortest, longest time.Duration) time.Duration {
	p.wait = min(max(2*p.wait, shortest), longest)
	return p.wait
}
