package quota

import "math"

// StatsLimits are the limits of numbers in [Stats] that say how many exist now. 0 means no
// limit.
type StatsLimits struct {
	// Connections is the limit of Stats.Connections ([Config].Total).
	Connections int `json:"connections"`
	// HalfOpen is the limit of Stats.HalfOpen: [Config].Total.HalfOpen for attempts without
	// a Retry token, and as many for those with one.
	HalfOpen int `json:"half_open"`
	// Sources is the limit of Stats.Sources and Stats.Sites together.
	Sources int `json:"sources"`
	// Entries is the limit of Stats.Denied, and once more that of Stats.Allowed.
	Entries int `json:"entries"`
}

// limits returns the limits of what exists.
func (c *Config) limits() StatsLimits {
	return StatsLimits{
		Connections: max(c.Total.Connections, 0),
		HalfOpen:    2 * min(max(c.Total.HalfOpen, 0), math.MaxInt/2),
		Sources:     c.MaxSources,
		Entries:     c.MaxEntries,
	}
}
