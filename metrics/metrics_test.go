package metrics

import (
	"errors"
	"io"
	"iter"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/relay/sni"
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
	for name, v := range numbers(t, c) {
		if v == 0 {
			continue
		}
		if seen[v] != "" {
			t.Errorf("%s and %s have the same number", seen[v], name)
		}
		seen[v] = name
	}
	for n := uint64(1); n <= last; n++ {
		if seen[float64(n)] == "" {
			t.Errorf("no metric has number %d of %T", n, stats)
		}
	}
}

// numbers yields the names of metrics, each with the value of a counter or a gauge, or the
// count of a histogram.
func numbers(t *testing.T, c prometheus.Collector) iter.Seq2[string, float64] {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, float64) bool) {
		for _, f := range families {
			for _, m := range f.Metric {
				v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				if !yield(f.GetName(), v) {
					return
				}
			}
		}
	}
}

func TestQuota(t *testing.T) { every(t, "quota", quotaMetrics, quota.Stats{}) }

// TestQuotaSeries checks that a quota has all series from the start, and those of its routes.
func TestQuotaSeries(t *testing.T) {
	c, err := quota.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Route("POST /login", quota.RouteLimits{Total: quota.RequestLimit{Rate: 1}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"passed_total": 9, "dropped_total": 9, "kernel_dropped_total": 5, "refused_total": 9, "route_passed_total": 1} {
		if n := testutil.CollectAndCount(Quota(c), "quicway_quota_"+name); n != want {
			t.Errorf("%s has %d series at the start, want %d", name, n, want)
		}
	}
}

func TestSNI(t *testing.T) {
	every(t, "sni", sniMetrics, sni.Stats{})
	stats := sni.Stats{UpstreamTime: sni.Times{Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}, Sum: 9}}
	c := newCollector("sni", sniMetrics[len(sniMetrics)-1:], func() (sni.Stats, error) { return stats, nil })
	want := `# HELP quicway_sni_upstream_seconds Times from the ClientHello to the upstream's acceptance, over TCP.
# TYPE quicway_sni_upstream_seconds histogram
quicway_sni_upstream_seconds_bucket{le="0.5"} 1
quicway_sni_upstream_seconds_bucket{le="1"} 3
quicway_sni_upstream_seconds_bucket{le="+Inf"} 6
quicway_sni_upstream_seconds_sum 9
quicway_sni_upstream_seconds_count 6
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestP2P checks the metrics of an endpoint: also that a relay has one label, whatever its
// address.
func TestP2P(t *testing.T) {
	every(t, "p2p", p2pMetrics, p2p.EndpointStats{})
	stats := p2p.EndpointStats{
		Relays: []p2p.RelayStats{{Addr: "a\xff:1", Connections: 3}, {Addr: "a\xfe:1"}, {Addr: "b:1", Down: true, RTT: time.Second}}, OtherRelays: 4,
		RTT:        map[p2p.PathKind]p2p.Times{p2p.LAN: {Bounds: []time.Duration{time.Second}, Counts: []uint64{1, 2}, Sum: 9 * time.Second}},
		PathEvents: map[p2p.PathReason]uint64{p2p.WhyPathDied: 5, 200: 6},
	}
	want := `
# HELP quicway_p2p_relay_connections Connections between peers that exist, by the relay through which their packets go, or would go without a direct path. other: relays that are not configured.
# TYPE quicway_p2p_relay_connections gauge
quicway_p2p_relay_connections{relay="a?:1"} 3
quicway_p2p_relay_connections{relay="b:1"} 0
quicway_p2p_relay_connections{relay="other"} 4
# HELP quicway_p2p_relay_down 1 if the endpoint cannot use a configured relay at present.
# TYPE quicway_p2p_relay_down gauge
quicway_p2p_relay_down{relay="a?:1"} 0
quicway_p2p_relay_down{relay="b:1"} 1
# HELP quicway_p2p_path_events_total Beginnings and changes of the paths of connections between peers, by reason.
# TYPE quicway_p2p_path_events_total counter
quicway_p2p_path_events_total{reason="path_died"} 5
quicway_p2p_path_events_total{reason="reason_200"} 6
# HELP quicway_p2p_rtt_seconds Smoothed round-trip times of connections between peers, by path. Each connection counts about once in each of its keepalive periods, and at its end.
# TYPE quicway_p2p_rtt_seconds histogram
quicway_p2p_rtt_seconds_bucket{path="lan",le="1"} 1
quicway_p2p_rtt_seconds_bucket{path="lan",le="+Inf"} 3
quicway_p2p_rtt_seconds_sum{path="lan"} 9
quicway_p2p_rtt_seconds_count{path="lan"} 3
`
	c := newCollector("p2p", p2pMetrics, func() (p2p.EndpointStats, error) { return stats, nil })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "quicway_p2p_relay_connections", "quicway_p2p_relay_down",
		"quicway_p2p_path_events_total", "quicway_p2p_rtt_seconds"); err != nil {
		t.Error(err)
	}
}

// TestPathReasons checks that each reason of a path has a label.
func TestPathReasons(t *testing.T) {
	for r := p2p.PathReason(0); !strings.HasPrefix(r.String(), "reason "); r++ {
		if pathReasons[r] == "" {
			t.Errorf("%q has no label", r)
		}
	}
}

// TestBuildInfo checks the version of the module in a program, in another one, and in one that
// replaces it.
func TestBuildInfo(t *testing.T) {
	own, replaced := &debug.Module{Path: modulePath, Version: "v1.2.3"}, &debug.Module{Path: modulePath, Version: "v1.2.3", Replace: &debug.Module{Path: "../quicway"}}
	for _, test := range []struct {
		build *debug.BuildInfo
		ok    bool
		want  string
	}{
		{nil, false, "(devel)"},
		{&debug.BuildInfo{Main: debug.Module{Path: modulePath}}, true, "(devel)"},
		{&debug.BuildInfo{Main: *own}, true, "v1.2.3"},
		{&debug.BuildInfo{Main: debug.Module{Path: "example.org/x", Version: "v9"}, Deps: []*debug.Module{own}}, true, "v1.2.3"},
		{&debug.BuildInfo{Deps: []*debug.Module{replaced}}, true, "(devel)"},
	} {
		if got := version(test.build, test.ok); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.build, got, test.want)
		}
	}
	if problems, err := testutil.CollectAndLint(BuildInfo()); err != nil || len(problems) > 0 || testutil.ToFloat64(BuildInfo()) != 1 {
		t.Errorf("%v %v", problems, err)
	}
}

// TestQuotaWithoutLimit checks that a limit that there is none of is infinite.
func TestQuotaWithoutLimit(t *testing.T) {
	c := newCollector("quota", quotaMetrics, func() (quota.Stats, error) { return quota.Stats{}, nil })
	for name, n := range numbers(t, c) {
		if name == "quicway_quota_connections_limit" && !math.IsInf(n, 1) {
			t.Errorf("no limit is %v", n)
		}
	}
}

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
# HELP quicway_monitor_connections QUIC connections that the monitor keeps, by how sure it is that they are QUIC.
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
	if n := testutil.CollectAndCount(c, "quicway_monitor_table_limit"); n != 8 {
		t.Errorf("got %d tables, want 8", n)
	}
}

// TestMonitorOfCapture checks the metrics of a capture with two connections, of which one
// moves.
func TestMonitorOfCapture(t *testing.T) {
	source, err := monitor.OpenFile("../examples/monitor/testdata/sample.pcap")
	if err != nil {
		t.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(Monitor(m))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()
	r, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`quicway_monitor_connections{confidence="proven"} 2`,
		`quicway_monitor_version_connections{version="v1"} 2`,
		`quicway_monitor_version_connections{version="v2"} 0`,
		`quicway_monitor_alpn_connections{alpn="other"} 2`,
		`quicway_monitor_opened_total 2`,
		`quicway_monitor_handshake_rtt_seconds_bucket{le="0.01"} 0`,
		`quicway_monitor_handshake_rtt_seconds_bucket{le="0.025"} 2`,
		`quicway_monitor_handshake_rtt_seconds_bucket{le="+Inf"} 2`,
		`quicway_monitor_handshake_rtt_seconds_count 2`,
		`quicway_monitor_handshake_half_seconds_count{half="server"} 2`,
		`quicway_monitor_handshake_half_seconds_count{half="client"} 2`,
		`quicway_monitor_path_changes_total{confidence="high",kind="rebinding"} 1`,
		`quicway_monitor_path_changes_total{confidence="low",kind="multipath"} 0`,
	} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// TestDocs checks that the table in the documentation has each metric of a monitor, and no
// other.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/monitor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "| metric |")
	_, table, _ = strings.Cut(table, "\n")
	listed := map[string]bool{}
	for row := range strings.Lines(table) {
		if cells := strings.Split(row, "|"); len(cells) > 2 && !strings.HasPrefix(row, "|--") {
			for name := range strings.SplitSeq(cells[1], ",") {
				listed[strings.TrimSpace(name)] = true
			}
		}
	}
	for _, m := range monitorMetrics {
		if !listed[m.name] {
			t.Errorf("docs/monitor.md lacks %s", m.name)
		}
		delete(listed, m.name)
	}
	if len(listed) > 0 {
		t.Errorf("docs/monitor.md has %v, which do not exist", slices.Collect(maps.Keys(listed)))
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
