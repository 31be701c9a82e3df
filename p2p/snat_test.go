package p2p

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/test/nettest"
)

// journal keeps what is logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), text)
}

// TestRelayBehindSNAT checks that the log says once that the relay does not see where
// packets come from.
func TestRelayBehindSNAT(t *testing.T) {
	for _, test := range []struct {
		relay, seen string
		said        int
	}{
		{"192.0.2.1:4433", "172.17.0.1:1000", 1},
		{"192.0.2.1:4433", "192.168.1.2:1000", 0}, // this host's
		{"192.0.2.1:4433", "203.0.113.1:1000", 0},
		{"192.168.1.1:4433", "192.168.1.9:1000", 0},
		{"[2001:db8::1]:4433", "[fd00::1]:1000", 1},
	} {
		runLab(t, func(l *lab) {
			var log journal
			e := l.anywhere(func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				c.list = func() ([]netmon.Address, error) {
					return []netmon.Address{hostAddr("eth0", "192.168.1.2", netmon.Uplink)}, nil
				}
			})
			h := &relayClient{endpoint: e, relay: Relay{Addr: test.relay}}
			h.moved(netip.MustParseAddrPort(test.relay))
			for range 3 {
				h.checkObserved(netip.MustParseAddrPort(test.seen))
			}
			if n := log.count("SNAT"); n != test.said {
				l.Errorf("%s, seen as %s: said %d times, want %d", test.relay, test.seen, n, test.said)
			}
		})
	}
}

// onlyProbesDirect drops all direct packets except for probes.
func (l *lab) onlyProbesDirect(p nettest.Packet) bool {
	relay := netip.MustParseAddrPort(relayAddr)
	return p.From == relay || p.To == relay || p.Data[0]&^1 == probeType
}

// TestProbesThatQUICCannotUse checks that the reason is WhyNotUsable when probes are
// answered but QUIC does not get through.
func TestProbesThatQUICCannotUse(t *testing.T) {
	runLab(t, func(l *lab) {
		l.net.Filter(l.onlyProbesDirect)
		a, _ := l.connect(l.public().peer(nil), l.public().peer(nil))
		for p := range a.PathEvents(l.Context()) {
			if p.Why == WhyNoAnswer {
				l.Errorf("path %+v", p)
			}
			if p.Why == WhyNotUsable {
				if len(p.Tried) == 0 || p.Tried[0].Err == nil {
					l.Errorf("tried %v", p.Tried)
				}
				break
			}
		}
		l.net.Filter(nil)
	})
}
