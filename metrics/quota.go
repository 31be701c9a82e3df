package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/quota"
)

// Quota returns a collector for the counters of a quota, quicway_quota_….
func Quota(c *quota.Controller) prometheus.Collector {
	return newCollector("quota", quotaMetrics, func() (quota.Stats, error) { return c.Stats(), nil })
}

var quotaMetrics = []metric[quota.Stats]{
	counts("passed_total", "Packets that the quota's filter has passed, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return named(s.Passed)
		}),
	counts("dropped_total", "Packets that the quota's filter has dropped in userspace or in the kernel, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return named(s.Dropped)
		}),
	counts("kernel_dropped_total", "Packets that the quota's XDP program has dropped in the kernel, by reason. They are part of dropped_total.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return named(s.Kernel)
		}),
	counts("refused_total", "Connection attempts and requests that the quota has refused, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return named(s.Refused)
		}),
	counts("route_passed_total", "Requests that a route of the quota has let through, by the name of the route.", "route",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return eachRoute(s, func(r quota.RouteStats) uint64 { return r.Passed })
		}),
	counts("route_refused_total", "Requests that a route of the quota has refused, by the name of the route.", "route",
		func(s *quota.Stats) iter.Seq2[string, uint64] {
			return eachRoute(s, func(r quota.RouteStats) uint64 { return r.Refused })
		}),
	count("kernel_errors_total", "Decisions of the quota that could not be passed to the kernel.", func(s *quota.Stats) uint64 { return s.KernelErrors }),
	count("admitted_total", "Connection attempts that the quota has admitted.", func(s *quota.Stats) uint64 { return s.Admitted }),
	count("retried_total", "Times that the quota had a Retry sent to a connection attempt.", func(s *quota.Stats) uint64 { return s.Retried }),
	count("withheld_total", "Packets that the quota has kept from being sent because the address is not validated.", func(s *quota.Stats) uint64 { return s.Withheld }),
	count("send_errors_total", "Packets behind the quota that the system has refused to send.", func(s *quota.Stats) uint64 { return s.SendErrors }),
	count("lost_events_total", "Events of the quota that were dropped because there were too many, or the reader was too slow.", func(s *quota.Stats) uint64 { return s.LostEvents }),
	gauge("dry_run", "1 if the quota only counts what it would keep out.", func(s *quota.Stats) int { return number(s.DryRun) }),

	gauge("connections", "Connections that the quota counts.", func(s *quota.Stats) int { return s.Connections }),
	limit("connections_limit", "Limit of connections that the quota admits, of all sources together.", func(s *quota.Stats) int { return s.Limits.Connections }),
	gauge("half_open", "Connections that the quota has admitted and whose handshake is not complete.", func(s *quota.Stats) int { return s.HalfOpen }),
	limit("half_open_limit", "Limit of connections whose handshake is not complete: one half for those that have answered a Retry, one for the others.", func(s *quota.Stats) int { return s.Limits.HalfOpen }),
	gauge("sources", "Sources whose limits the quota keeps.", func(s *quota.Stats) int { return s.Sources }),
	gauge("sites", "Sites whose limits the quota keeps.", func(s *quota.Stats) int { return s.Sites }),
	gauge("sources_limit", "Limit of sources and sites together whose limits the quota keeps.", func(s *quota.Stats) int { return s.Limits.Sources }),
	gauge("denied", "Prefixes on the quota's deny list.", func(s *quota.Stats) int { return s.Denied }),
	gauge("allowed", "Prefixes on the quota's allow list.", func(s *quota.Stats) int { return s.Allowed }),
	gauge("entries_limit", "Limit of prefixes on each of the quota's lists.", func(s *quota.Stats) int { return s.Limits.Entries }),
}

// eachRoute yields the names of routes and one of their counters.
func eachRoute(s *quota.Stats, counter func(quota.RouteStats) uint64) iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for name, r := range s.Routes {
			if !yield(name, counter(r)) {
				return
			}
		}
	}
}
