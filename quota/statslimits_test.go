package quota

import (
	"math"
	"testing"
)

// TestStatsLimits checks that Stats has the limits of the configuration, and 0 for what has none.
func TestStatsLimits(t *testing.T) {
	for _, test := range []struct {
		conf Config
		want StatsLimits
	}{
		{Config{}, StatsLimits{65536, 2 * 4096, defaultSources, defaultEntries}},
		{Config{Total: Limits{Connections: -1, HalfOpen: -1}, MaxSources: 64, MaxEntries: 3}, StatsLimits{0, 0, 64, 3}},
		{Config{Total: Limits{HalfOpen: math.MaxInt}}, StatsLimits{65536, math.MaxInt - 1, defaultSources, defaultEntries}},
	} {
		if got := mustNew(t, &test.conf).Stats().Limits; got != test.want {
			t.Errorf("got %+v, want %+v", got, test.want)
		}
	}
}
