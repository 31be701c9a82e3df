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
	counts("passed_total", "Packets that the filter has passed, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Passed) }),
	counts("dropped_total", "Packets that were dropped, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Dropped) }),
	counts("kernel_dropped_total", "Packets that the kernel has dropped, by reason. They are part of dropped_total.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Kernel) }),
	count("kernel_errors_total", "Decisions that could not be passed to the kernel.", func(s *quota.Stats) uint64 { return s.KernelErrors }),
	count("admitted_total", "Connection attempts that were admitted.", func(s *quota.Stats) uint64 { return s.Admitted }),
	count("retried_total", "Connection attempts that got a Retry.", func(s *quota.Stats) uint64 { return s.Retried }),
	counts("refused_total", "Connection attempts and requests that were refused, by reason.", "reason",
		func(s *quota.Stats) iter.Seq2[string, uint64] { return named(s.Refused) }),
	gauge("connections", "Open connections.", func(s *quota.Stats) int { return s.Connections }),
	gauge("half_open", "Connections whose handshake is not complete.", func(s *quota.Stats) int { return s.HalfOpen }),
	gauge("sources", "Sources whose limits are kept.", func(s *quota.Stats) int { return s.Sources }),
	gauge("sites", "Sites whose limits are kept.", func(s *quota.Stats) int { return s.Sites }),
	gauge("denied", "Prefixes on the deny list.", func(s *quota.Stats) int { return s.Denied }),
	gauge("allowed", "Prefixes on the allow list.", func(s *quota.Stats) int { return s.Allowed }),
	count("withheld_total", "Writes that were held back because the address is not validated.", func(s *quota.Stats) uint64 { return s.Withheld }),
	count("send_errors_total", "Writes that the system has refused.", func(s *quota.Stats) uint64 { return s.SendErrors }),
	count("lost_events_total", "Events that were dropped because the reader was too slow.", func(s *quota.Stats) uint64 { return s.LostEvents }),
}
