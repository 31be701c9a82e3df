package monitor

import "testing"

// TestFilterInKernel checks that the kernel passes over most packets of a flow that the filter
// excludes, as of one that is not QUIC, and that it counts what the filter selects.
func TestFilterInKernel(t *testing.T) {
	const n = 1000
	for _, h := range hooksHere(t) {
		t.Run(h.name, func(t *testing.T) {
			selected, excluded := testConnOf(1), testConnOf(2)
			o := newOffloaded(t, h, 100, &Config{Filter: mustFilter(t, "host 10.0.0.1 and name kernel.example")})
			for range n {
				o.all(excluded.short(100))
			}
			if stats := o.stats(); stats["monitor_ignored"] < n/2 {
				t.Errorf("of %d packets that the filter excludes %d were ignored and %d reported", n, stats["monitor_ignored"], stats["monitor_reported"])
			}
			o.all(selected.begin(t), selected.short(100), selected.short(100), excluded.begin(t))
			c := only(t, o.tracker)
			if c.ServerName != "kernel.example" || c.FromServer.Packets != 2 || c.Paths[0].Client.String() != selected.client {
				t.Errorf("got %q of %v with %v", c.ServerName, c.Paths[0].Client, c.FromServer)
			}
		})
	}
}
