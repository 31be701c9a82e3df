// Package metrics exports the counters of a monitor, a relay, a relay by server name, a
// quota and an XDP program to Prometheus:
//
//	registry.MustRegister(metrics.Monitor(m), metrics.Relay(server))
//
// Each collector reads the counters when it is scraped and keeps no state. It may be
// used concurrently. A registry takes one collector of each kind. To register more,
// add a label with [prometheus.WrapRegistererWith]. No other package of the module
// depends on Prometheus' client.
package metrics
