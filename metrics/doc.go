// Package metrics exports the counters of an endpoint, a relay, a relay by server name, a
// quota, a monitor and an XDP program to Prometheus:
//
//	registry.MustRegister(metrics.BuildInfo(), metrics.P2P(endpoint), metrics.Relay(server))
//
// Each collector reads the counters when it is scraped and keeps no state. It may be
// used concurrently. A registry takes one collector of each kind. To register more,
// add a label with [prometheus.WrapRegistererWith]. No other package of the module
// depends on Prometheus' client.
//
// All series of a collector are there from the first scrape, those of a [quota.Route] from when
// it is made, and no peer, client or packet can make a new one. A number that is bounded stands beside its limit, such as
// quicway_relay_sessions and quicway_relay_sessions_limit. Times are in seconds. The document
// docs/metrics.md lists all metrics, and says when to raise an alarm.
package metrics
