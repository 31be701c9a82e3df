package quota

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Stats counts since the controller was made.
type Stats struct {
	// Passed and Dropped count the packets that the filter has judged, by
	// reason. In a dry run what was to be dropped has passed.
	Passed, Dropped map[Reason]uint64
	// Kernel counts those of Dropped that the kernel has dropped, which the
	// filter has not seen ([Config.XDP]), and KernelErrors how often the kernel
	// could not be told of a decision, as when its maps are full.
	Kernel       map[Reason]uint64
	KernelErrors uint64
	// Admitted counts attempts that were let in, Refused those that were not,
	// by reason, and requests. Retried counts the Retry packets that were asked
	// for, of which an attempt of two datagrams gets two.
	Admitted, Retried uint64
	Refused           map[Reason]uint64
	// Connections and HalfOpen are those that exist now.
	Connections, HalfOpen int
	// Sources and Sites are those that are remembered now.
	Sources, Sites int
	// Denied and Allowed are the entries of the lists.
	Denied, Allowed int
	// LostEvents counts those that were not reported, because there were too
	// many or a reader did not keep up.
	LostEvents uint64
	// Withheld counts writes that were not made, because they would have brought an
	// address that is not validated more than three times what it has sent (RFC
	// 9000 §8.1, §8.2.1), and SendErrors those that the system refused.
	Withheld, SendErrors uint64
	// DryRun says whether nobody has been kept out in truth.
	DryRun bool
}

// SourceStats is what is remembered of a source.
type SourceStats struct {
	Source netip.Prefix
	// Connections and HalfOpen are those that exist now.
	Connections, HalfOpen int
	// Admitted and Refused count its attempts (and refused requests), Dropped
	// the packets of attempts, and those beyond its rate, that were dropped.
	Admitted, Refused, Dropped uint64
}

// counters are those of a controller.
type counters struct {
	admitted, retried, lost  atomic.Uint64
	withheld, sendErrors     atomic.Uint64
	refused, passed, dropped [numReasons]atomic.Uint64
}

// attempt counts one.
func (c *counters) attempt(why Reason) {
	if why == PassNew {
		c.admitted.Add(1)
		return
	}
	c.refused[why].Add(1)
}

// tally counts a batch of packets, before all see it.
type tally struct{ passed, dropped [numReasons]uint64 }

func (t *tally) flush(c *Controller) {
	for why := range numReasons {
		if n := t.passed[why]; n > 0 {
			c.counters.passed[why].Add(n)
		}
		if n := t.dropped[why]; n > 0 {
			c.counters.dropped[why].Add(n)
		}
	}
}

// Stats returns the counters. They are read one by one, while packets flow.
func (c *Controller) Stats() Stats {
	out := Stats{
		Passed:     sum(&c.counters.passed),
		Dropped:    sum(&c.counters.dropped),
		Refused:    sum(&c.counters.refused),
		Admitted:   c.counters.admitted.Load(),
		Retried:    c.counters.retried.Load(),
		LostEvents: c.counters.lost.Load(),
		Withheld:   c.counters.withheld.Load(),
		SendErrors: c.counters.sendErrors.Load(),
		DryRun:     c.conf.DryRun,
	}
	out.Kernel, out.KernelErrors = c.enforcer.dropped(), c.enforcer.failed()
	for why, n := range out.Kernel {
		out.Dropped[why] += n
	}
	c.mu.Lock()
	out.Connections, out.HalfOpen = int(c.total.live), c.total.attempts()
	c.mu.Unlock()
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		out.Sources += len(sh.sources)
		out.Sites += len(sh.sites)
		sh.mu.Unlock()
	}
	now := c.conf.Now()
	out.Denied, out.Allowed = c.lists.count(DenyList, now), c.lists.count(AllowList, now)
	return out
}

// sum returns the reasons that have been counted.
func sum(all *[numReasons]atomic.Uint64) map[Reason]uint64 {
	out := make(map[Reason]uint64)
	for why := range numReasons {
		if n := all[why].Load(); n > 0 {
			out[why] = n
		}
	}
	return out
}

// Top returns the n sources that were kept out most, and of those that were not,
// those with most connections first. It looks at every source that is
// remembered.
func (c *Controller) Top(n int) []SourceStats {
	if n <= 0 {
		return nil
	}
	var top []SourceStats // the n first, and then some
	var last *SourceStats // of those that were the n first before
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, s := range sh.ring {
			if s.isSite {
				continue
			}
			if stats := c.statsOf(s); last == nil || before(stats, *last) < 0 {
				top = append(top, stats)
			}
		}
		sh.mu.Unlock()
		if len(top)/2 >= n {
			top = first(top, n)
			nth := top[n-1]
			last = &nth
		}
	}
	return first(top, n)
}

// first sorts sources and returns the n first.
func first(all []SourceStats, n int) []SourceStats {
	slices.SortFunc(all, before)
	return all[:min(len(all), n)]
}

func (c *Controller) statsOf(s *source) SourceStats {
	return SourceStats{
		Source:      s.key.prefix(c.conf.IPv4Bits, c.conf.IPv6Bits),
		Connections: int(s.live), HalfOpen: s.attempts(),
		Admitted: s.admitted, Refused: s.refused, Dropped: s.dropped,
	}
}

// before orders sources for Top.
func before(a, b SourceStats) int {
	return cmp.Or(
		cmp.Compare(b.Refused+b.Dropped, a.Refused+a.Dropped),
		cmp.Compare(b.Connections+b.HalfOpen, a.Connections+a.HalfOpen),
		cmp.Compare(b.Admitted, a.Admitted),
		a.Source.Addr().Compare(b.Source.Addr()),
	)
}
