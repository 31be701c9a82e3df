package livetest

import (
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestFlood floods a host whose sink counts at one interface, and then at none.
func TestFlood(t *testing.T) {
	from, to := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(from, "eth0", []string{"10.1.0.1/24"}, to, "eth0", []string{"10.1.0.2/24"})
	frame := make([]byte, 1200)
	g, s := NewGenerator(t, from, "eth0", frame, make([][Head]byte, 1)), NewSink(t)
	t.Cleanup(g.Attach(t))
	detach := s.Frames(t, to, "eth0")
	if n, err := g.Flood(s, 1000); err != nil || n < 1000 {
		t.Errorf("%d frames have arrived, %v", n, err)
	}
	detach()
	if _, err := g.Flood(s, 1000); err == nil || !strings.Contains(err.Error(), "nothing has arrived") {
		t.Errorf("without a sink: %v", err)
	}
}
