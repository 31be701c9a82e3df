package metrics

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
)

// set sets each number in a Stats to a different value. next is the last value that
// was used.
func set(v reflect.Value, next *uint64) {
	for _, f := range v.Fields() {
		switch *next++; f.Kind() {
		case reflect.Uint64:
			f.SetUint(*next)
		case reflect.Int:
			f.SetInt(int64(*next))
		case reflect.Struct:
			*next--
			set(f, next)
		default:
			*next--
		}
	}
}

// every checks that exactly one metric has each number of a Stats, and that Prometheus'
// linter accepts all metrics.
func every[S any](t *testing.T, subsystem string, metrics []metric[S], stats S) {
	t.Helper()
	var last uint64
	set(reflect.ValueOf(&stats).Elem(), &last)
	c := newCollector(subsystem, metrics, func() (S, error) { return stats, nil })
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	seen := map[float64]string{}
	for _, m := range metrics {
		if m.value != nil {
			v := m.value(&stats)
			if seen[v] != "" {
				t.Errorf("%s and %s have the same number", seen[v], m.name)
			}
			seen[v] = m.name
		}
	}
	for n := uint64(1); n <= last; n++ {
		if seen[float64(n)] == "" {
			t.Errorf("no metric has number %d of %T", n, stats)
		}
	}
}

func TestQuota(t *testing.T) { every(t, "quota", quotaMetrics, quota.Stats{}) }

func TestRelay(t *testing.T) { every(t, "relay", relayMetrics, relay.Stats{}) }

func TestMonitor(t *testing.T) {
	every(t, "monitor", monitorMetrics, monitor.Stats{})
	m, err := monitor.New(nothing{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := Monitor(m)
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	want := `
# HELP quicway_monitor_connections Connections that are kept, by how sure it is that they are QUIC.
# TYPE quicway_monitor_connections gauge
quicway_monitor_connections{confidence="gquic"} 0
quicway_monitor_connections{confidence="handshake"} 0
quicway_monitor_connections{confidence="midflow"} 0
quicway_monitor_connections{confidence="potential"} 0
quicway_monitor_connections{confidence="proven"} 0
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "quicway_monitor_connections"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(c, "quicway_monitor_table_limit"); n != 6 {
		t.Errorf("got %d tables, want 6", n)
	}
}

// nothing is a source without packets.
type nothing struct{ monitor.Source }

func (nothing) Dropped() uint64 { return 7 }

// TestError checks that a scrape fails when the counters cannot be read.
func TestError(t *testing.T) {
	c := newCollector("relay", relayMetrics, func() (s relay.Stats, err error) { return s, errors.New("closed") })
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	if _, err := registry.Gather(); err == nil {
		t.Error("no error")
	}
}

// TestLeaf checks that no other package depends on Prometheus' client.
func TestLeaf(t *testing.T) {
	packages := []string{"monitor", "relay", "quota", "xdp", "p2p", "cid"}
	for i := range packages {
		packages[i] = "github.com/quicway/quicway/" + packages[i]
	}
	out, err := exec.Command("go", append([]string{"list", "-deps"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "prometheus") {
		t.Error("another package depends on Prometheus' client")
	}
}
