package sni

import "math"

// StatsLimits are the limits of numbers in [Stats] that say how many exist now. The JSON names
// stay. Later versions may add fields.
type StatsLimits struct {
	// Connections is the limit of Stats.Open, and Waiting that of Stats.Waiting.
	Connections int `json:"connections"`
	Waiting     int `json:"waiting"`
	// QUICFlows is the limit of QUICStats.Flows, [Config.MaxConnections] and MaxWaiting
	// together, and QUICWaiting that of QUICStats.Waiting.
	QUICFlows   int `json:"quic_flows"`
	QUICWaiting int `json:"quic_waiting"`
	// InKernel is the limit of SpliceStats.InKernel, or 0 if the kernel relays nothing.
	InKernel int `json:"in_kernel"`
}

// limits returns the limits of what exists.
func (s *Server) limits() StatsLimits {
	c := s.conf
	out := StatsLimits{
		Connections: c.MaxConnections, Waiting: c.MaxWaiting,
		QUICFlows: c.MaxConnections + min(c.MaxWaiting, math.MaxInt-c.MaxConnections), QUICWaiting: c.MaxWaiting,
	}
	if s.splicer != nil {
		out.InKernel = c.Splice.MaxConnections
	}
	return out
}
