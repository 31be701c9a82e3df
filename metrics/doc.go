// Package metrics shows the counters of a monitor, a relay, a quota and the
// kernel's program to Prometheus:
//
//	registry.MustRegister(metrics.Monitor(m), metrics.Relay(server))
//
// Each collector asks for the counters when it is scraped, and keeps nothing. It
// may be used concurrently. One of each kind fits into a registry; wrap it with a
// label of your own for more ([prometheus.WrapRegistererWith]). Nobody who does not
// import this package compiles Prometheus' client.
package metrics
