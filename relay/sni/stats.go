package sni

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Failure is why a connection got no upstream.
type Failure uint8

const (
	// HelloTimeout: the ClientHello was not complete in time.
	HelloTimeout Failure = iota
	// HelloEnded: the client has closed the connection before.
	HelloEnded
	// HelloReset: the client has reset the connection before, or another error ended it.
	HelloReset
	// HelloTooLong: the ClientHello has more than 16 KiB.
	HelloTooLong
	// HelloInvalid: the stream begins like TLS, but not with a valid ClientHello.
	HelloInvalid
	// ProxyHeader: the PROXY protocol header is missing or invalid.
	ProxyHeader
	// NoRoute: no route fits, or the route has no upstreams.
	NoRoute
	// RouterRefused: Config.Router has returned an error.
	RouterRefused
	// RouteFull: the route has Route.MaxConnections.
	RouteFull
	// SourceFull: the source has Config.MaxConnectionsPerSource.
	SourceFull
	// WaitingFull: Config.MaxWaiting or Config.MaxWaitingPerSource was reached.
	WaitingFull
	// QuotaRefused: the quota.Controller has refused the client.
	QuotaRefused
	// UpstreamFailed: none of the upstreams that were tried has accepted a connection.
	UpstreamFailed
	// ServerClosed: the server was closed before.
	ServerClosed
	// ServerFull: there are Config.MaxConnections flows of QUIC.
	ServerFull
	// Unconfirmed: an upstream has answered over QUIC, but the client has not shown in time
	// that it receives the answer.
	Unconfirmed

	numFailures
)

var failureNames = [numFailures]string{
	HelloTimeout: "hello_timeout", HelloEnded: "hello_ended", HelloReset: "hello_reset", HelloTooLong: "hello_too_long",
	HelloInvalid: "hello_invalid", ProxyHeader: "proxy_header", NoRoute: "no_route", RouterRefused: "router_refused",
	RouteFull: "route_full", SourceFull: "source_full", WaitingFull: "waiting_full", QuotaRefused: "quota_refused",
	UpstreamFailed: "upstream_failed", ServerClosed: "server_closed",
	ServerFull: "server_full", Unconfirmed: "unconfirmed",
}

// String returns a name that is fit for the label of a metric.
func (f Failure) String() string {
	if f < numFailures {
		return failureNames[f]
	}
	return fmt.Sprintf("failure %d", uint8(f))
}

// MarshalText returns the name. JSON uses it for the keys of maps.
func (f Failure) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (f *Failure) UnmarshalText(text []byte) error {
	i := slices.Index(failureNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("sni: unknown failure %q", text)
	}
	*f = Failure(i)
	return nil
}

// Stats are the counters since the server was made. The JSON names stay. Later versions
// may add fields.
type Stats struct {
	// Accepted counts connections of clients. Each of them is relayed, or fails, or is
	// among those that wait for the ClientHello or for an upstream.
	Accepted uint64 `json:"accepted"`
	// Relayed counts connections that got an upstream.
	Relayed uint64 `json:"relayed"`
	// Failed counts connections that got none, by reason. It has an entry for each
	// reason.
	Failed map[Failure]uint64 `json:"failed"`
	// Reset and Idle count relayed connections that ended by a reset of either side,
	// and by Config.IdleTimeout.
	Reset uint64 `json:"reset"`
	Idle  uint64 `json:"idle"`
	// Open is the number of connections that exist, and Waiting that of those whose
	// ClientHello is not complete.
	Open    int `json:"open"`
	Waiting int `json:"waiting"`
	// FromClients and FromUpstreams count bytes of connections that have ended. The
	// PROXY protocol headers are not counted.
	FromClients   uint64 `json:"from_clients"`
	FromUpstreams uint64 `json:"from_upstreams"`
	// DialFailures counts attempts to reach an upstream that failed.
	DialFailures uint64 `json:"dial_failures"`
	// AcceptErrors counts errors of the listener that do not end it, such as too many
	// open files.
	AcceptErrors uint64 `json:"accept_errors"`
	// UpstreamTime has the times from the ClientHello to the upstream's acceptance.
	UpstreamTime Times `json:"upstream_time"`
	// QUIC has the counters about QUIC. All others are about TCP.
	QUIC QUICStats `json:"quic"`
	// Splice has the counters of the kernel path.
	Splice SpliceStats `json:"splice"`
	// Limits are the limits of what exists.
	Limits StatsLimits `json:"limits"`
}

// timeBounds are the upper bounds of Times.Counts.
var timeBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// Times is a histogram of times.
type Times struct {
	// Bounds are upper bounds in seconds.
	Bounds []float64 `json:"bounds"`
	// Counts has the number of times up to each bound, and not up to the one before,
	// and at its end the number of longer times.
	Counts []uint64 `json:"counts"`
	// Sum is the sum of all times in seconds.
	Sum float64 `json:"sum"`
}

// histogram counts times.
type histogram struct {
	counts [len(timeBounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < len(timeBounds) && d > timeBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) times() (t Times) {
	for i := range h.counts {
		t.Counts = append(t.Counts, h.counts[i].Load())
	}
	for _, b := range timeBounds {
		t.Bounds = append(t.Bounds, b.Seconds())
	}
	t.Sum = time.Duration(h.sum.Load()).Seconds()
	return t
}

// counters are the counters of a server.
type counters struct {
	accepted, relayed, reset, idle atomic.Uint64
	fromClients, fromUpstreams     atomic.Uint64
	dialFailures, acceptErrors     atomic.Uint64
	failed                         [numFailures]atomic.Uint64
	upstreamTime                   histogram
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	open, waiting := s.conns.count()
	out := Stats{
		Accepted: c.accepted.Load(), Relayed: c.relayed.Load(), Failed: make(map[Failure]uint64),
		Reset: c.reset.Load(), Idle: c.idle.Load(), Open: open, Waiting: waiting,
		FromClients: c.fromClients.Load(), FromUpstreams: c.fromUpstreams.Load(),
		DialFailures: c.dialFailures.Load(), AcceptErrors: c.acceptErrors.Load(), UpstreamTime: c.upstreamTime.times(),
		Splice: s.spliceStats(), Limits: s.limits(),
	}
	for f := range numFailures {
		out.Failed[f] = c.failed[f].Load()
	}
	out.QUIC = s.quic.stats()
	return out
}
