package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/quota"
)

// Quota collects the counters of a quota, quicway_quota_….
func Quota(c *quota.Controller) prometheus.Collector {
	return newCollector("quota", quotaMetrics, func() (quota.Stats, error) { return c.Stats(), nil })
}

var quotaMetrics = []metric[quota.Stats]{
	counts("passed_total", "Packets that the filter has passed, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Passed) }),
	counts("dropped_total", "Packets that were dropped, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Dropped) }),
	counts("kernel_dropped_total", "Those of them that the kernel has dropped, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Kernel) }),
	count("kernel_errors_total", "Decisions that the kernel did not take.", func(s *quota.Stats) uint64 { return s.KernelErrors }),
	count("admitted_total", "Attempts that were let in.", func(s *quota.Stats) uint64 { return s.Admitted }),
	count("retried_total", "Retry packets that were asked for.", func(s *quota.Stats) uint64 { return s.Retried }),
	counts("refused_total", "Attempts and requests that were refused, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Refused) }),
	gauge("connections", "Connections that exist.", func(s *quota.Stats) int { return s.Connections }),
	gauge("half_open", "Handshakes that are not done.", func(s *quota.Stats) int { return s.HalfOpen }),
	gauge("sources", "Sources that are remembered.", func(s *quota.Stats) int { return s.Sources }),
	gauge("sites", "Sites that are remembered.", func(s *quota.Stats) int { return s.Sites }),
	gauge("denied", "Prefixes on the deny list.", func(s *quota.Stats) int { return s.Denied }),
	gauge("allowed", "Prefixes on the allow list.", func(s *quota.Stats) int { return s.Allowed }),
	count("withheld_total", "Writes that an address that is not validated was spared.", func(s *quota.Stats) uint64 { return s.Withheld }),
	count("send_errors_total", "Writes that the system refused.", func(s *quota.Stats) uint64 { return s.SendErrors }),
	count("lost_events_total", "Events that were not reported.", func(s *quota.Stats) uint64 { return s.LostEvents }),
}
