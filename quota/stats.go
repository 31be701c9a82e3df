package quota

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Stats are counters since the controller was made, and current numbers. Each map by reason
// has an entry for each reason that can be in it, so that a series is there from the start.
// The JSON names stay. Later versions may add fields and reasons.
type Stats struct {
	// Passed and Dropped count the packets that the filter has decided about, by
	// reason. In a dry run the packets in Dropped have passed as well.
	Passed  map[Reason]uint64 `json:"passed"`
	Dropped map[Reason]uint64 `json:"dropped"`
	// Kernel counts those packets in Dropped that the kernel has dropped, before the
	// filter saw them ([Config].XDP).
	Kernel map[Reason]uint64 `json:"kernel"`
	// KernelErrors counts decisions that could not be passed to the kernel, for
	// example because one of its maps was full.
	KernelErrors uint64 `json:"kernel_errors"`
	// Admitted counts the attempts that were admitted.
	Admitted uint64 `json:"admitted"`
	// Retried counts how often [Controller.WantsRetry] asked for a Retry. An attempt
	// of two datagrams counts twice.
	Retried uint64 `json:"retried"`
	// Refused counts the attempts and requests that were refused, by reason.
	Refused map[Reason]uint64 `json:"refused"`
	// Routes has the counters of each [Route], by its name.
	Routes map[string]RouteStats `json:"routes"`
	// Connections and HalfOpen are the current numbers of connections and of
	// attempts.
	Connections int `json:"connections"`
	HalfOpen    int `json:"half_open"`
	// Sources and Sites are the numbers that are remembered now.
	Sources int `json:"sources"`
	Sites   int `json:"sites"`
	// Denied and Allowed are the numbers of entries on the lists that have not
	// expired.
	Denied  int `json:"denied"`
	Allowed int `json:"allowed"`
	// LostEvents counts events that were not reported, because there were too many
	// or because a reader was too slow.
	LostEvents uint64 `json:"lost_events"`
	// Withheld counts packets that were not sent, because they would have exceeded
	// three times what an address that is not validated has sent (RFC 9000 §8.1,
	// §8.2.1).
	Withheld uint64 `json:"withheld"`
	// SendErrors counts packets that the system refused to send.
	SendErrors uint64 `json:"send_errors"`
	// DryRun is [Config].DryRun.
	DryRun bool `json:"dry_run"`
	// Limits are the limits of the current numbers.
	Limits StatsLimits `json:"limits"`
}

// SourceStats are the counters of one source. The JSON names stay. Later versions may add
// fields.
type SourceStats struct {
	Source netip.Prefix `json:"source"`
	// Connections and HalfOpen are the current numbers of connections and of
	// attempts.
	Connections int `json:"connections"`
	HalfOpen    int `json:"half_open"`
	// Admitted counts attempts that were admitted.
	Admitted uint64 `json:"admitted"`
	// Refused counts attempts and requests that were refused.
	Refused uint64 `json:"refused"`
	// Dropped counts packets that were dropped because they opened an attempt
	// beyond the quota or exceeded a rate.
	Dropped uint64 `json:"dropped"`
}

// The reasons that each map of Stats has.
var (
	passedReasons = []Reason{
		PassAllowed, PassOther, PassContinuing, PassFlow, PassNew,
		// the packets that QUIC answers with a refusal
		Connections, ConnectionRate, TotalConnections, TotalConnectionRate,
	}
	droppedReasons = []Reason{
		Denied, PacketRate, ShortInitial, Repeated, AttemptRate,
		Connections, ConnectionRate, TotalConnections, TotalConnectionRate,
	}
	kernelDroppedReasons = slices.Sorted(maps.Values(kernelReasons))
	refusedReasons       = []Reason{
		Denied, Repeated, Connections, ConnectionRate, TotalConnections, TotalConnectionRate,
		HalfOpen, RequestRate, RouteRate,
	}
)

// counters are the counters of a controller.
type counters struct {
	admitted, retried, lost  atomic.Uint64
	withheld, sendErrors     atomic.Uint64
	refused, passed, dropped [numReasons]atomic.Uint64
}

// attempt counts an attempt: as admitted if why is PassNew, or else as refused.
func (c *counters) attempt(why Reason) {
	if why == PassNew {
		c.admitted.Add(1)
		return
	}
	c.refused[why].Add(1)
}

// tally counts the packets of a batch, and adds them to the counters at its end.
type tally struct{ passed, dropped [numReasons]uint64 }

func (t *tally) flush(to *counters) {
	for why := range numReasons {
		if n := t.passed[why]; n > 0 {
			to.passed[why].Add(n)
		}
		if n := t.dropped[why]; n > 0 {
			to.dropped[why].Add(n)
		}
	}
}

// Stats returns the current counters. It reads one after the other, so they may not
// be of exactly the same instant.
func (c *Controller) Stats() Stats {
	out := Stats{
		Passed:     byReason(&c.counters.passed, passedReasons),
		Dropped:    byReason(&c.counters.dropped, droppedReasons),
		Refused:    byReason(&c.counters.refused, refusedReasons),
		Routes:     c.routes.stats(),
		Admitted:   c.counters.admitted.Load(),
		Retried:    c.counters.retried.Load(),
		LostEvents: c.counters.lost.Load(),
		Withheld:   c.counters.withheld.Load(),
		SendErrors: c.counters.sendErrors.Load(),
		DryRun:     c.conf.DryRun,
		Limits:     c.conf.limits(),
	}
	enforcer := c.enforcement.enforcer
	out.Kernel, out.KernelErrors = zeros(kernelDroppedReasons), enforcer.failed()
	for why, n := range enforcer.dropped() {
		out.Kernel[why] = n
		out.Dropped[why] += n
	}
	c.total.mu.Lock()
	out.Connections, out.HalfOpen = int(c.total.count[stageLive]), c.total.halfOpen()
	c.total.mu.Unlock()
	out.Sources, out.Sites = c.sources.count()
	now := c.conf.Now()
	out.Denied, out.Allowed = c.lists.count(DenyList, now), c.lists.count(AllowList, now)
	return out
}

// zeros returns a map with a 0 for each reason.
func zeros(reasons []Reason) map[Reason]uint64 {
	out := make(map[Reason]uint64, len(reasons))
	for _, why := range reasons {
		out[why] = 0
	}
	return out
}

// byReason returns the counters of some reasons, and those that are not zero.
func byReason(all *[numReasons]atomic.Uint64, reasons []Reason) map[Reason]uint64 {
	out := zeros(reasons)
	for why := range numReasons {
		if n := all[why].Load(); n > 0 {
			out[why] = n
		}
	}
	return out
}

// Top returns n sources: first those that were kept out most often, then those with
// the most connections. It returns fewer if fewer are remembered. It looks at every
// source.
func (c *Controller) Top(n int) []SourceStats { return c.sources.top(n) }

// first sorts sources and returns the first n.
func first(all []SourceStats, n int) []SourceStats {
	slices.SortFunc(all, before)
	return all[:min(len(all), n)]
}

// before compares sources by their order in Top.
func before(a, b SourceStats) int {
	return cmp.Or(
		cmp.Compare(b.Refused+b.Dropped, a.Refused+a.Dropped),
		cmp.Compare(b.Connections+b.HalfOpen, a.Connections+a.HalfOpen),
		cmp.Compare(b.Admitted, a.Admitted),
		a.Source.Addr().Compare(b.Source.Addr()),
	)
}
