package metrics

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/relay/sni"
	"github.com/quicway/quicway/xdp"
)

// recordedScrape is what a scrape of examples/metrics has given, with a monitor and an XDP
// program, which needs root:
//
//	go run ./examples/metrics -once -capture examples/monitor/testdata/sample.pcap -xdp lo
const recordedScrape = "testdata/scrape.txt"

// sample is a line of a scrape.
type sample struct {
	name   string // of the series
	labels string // as in the text, with the braces
	value  string
}

// scrape is a scrape that was recorded.
type scrape struct {
	samples []sample
	types   map[string]string          // by the name of the family
	help    map[string]string          // by that
	labels  map[string]map[string]bool // the names of the labels, by that
}

var (
	sampleLine = regexp.MustCompile(`^(\w+)(\{.*\})? (\S+)$`)
	labelName  = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
)

// readScrape reads the recorded scrape.
func readScrape(t *testing.T) *scrape {
	t.Helper()
	f, err := os.Open(recordedScrape)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &scrape{types: make(map[string]string), help: make(map[string]string), labels: make(map[string]map[string]bool)}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if words := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			s.types[words[2]], s.labels[words[2]] = words[3], make(map[string]bool)
		} else if m := sampleLine.FindStringSubmatch(line); m != nil {
			s.samples = append(s.samples, sample{m[1], m[2], m[3]})
			for _, label := range labelName.FindAllStringSubmatch(m[2], -1) {
				s.labels[s.family(m[1])][label[1]] = true
			}
		} else if text, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(text, " ")
			s.help[name] = help
		} else {
			t.Fatalf("%s: %q", recordedScrape, line)
		}
	}
	return s
}

// family returns the family of a series, or "" if there is none.
func (s *scrape) family(series string) string {
	if s.types[series] != "" {
		return series
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(series, suffix); ok && s.types[base] == "histogram" {
			return base
		}
	}
	return ""
}

// description is what a metric says about itself.
type description struct {
	help   string
	labels []string
}

// described adds the metrics of a package to all.
func described[S any](all map[string]description, subsystem string, metrics []metric[S]) {
	for _, m := range metrics {
		all[prometheus.BuildFQName(namespace, subsystem, m.name)] = description{m.help, m.labels}
	}
}

// allMetrics returns all metrics.
func allMetrics() map[string]description {
	all := map[string]description{"quicway_build_info": {buildHelp, []string{"version", "goversion"}}}
	described[p2p.EndpointStats](all, "p2p", p2pMetrics)
	described[relay.Stats](all, "relay", relayMetrics)
	described[sni.Stats](all, "sni", sniMetrics)
	described[quota.Stats](all, "quota", quotaMetrics)
	described[monitor.Stats](all, "monitor", monitorMetrics)
	described[map[xdp.Reason]uint64](all, "xdp", xdpMetrics)
	return all
}

// TestRecorded checks that the recorded scrape has all metrics, with their texts and labels, and
// no others.
// The dashboard and the alerts are tested with it.
func TestRecorded(t *testing.T) {
	recorded := readScrape(t)
	for name, m := range allMetrics() {
		have := maps.Clone(recorded.labels[name])
		delete(have, "le")
		delete(have, "peer") // which the example adds
		if got, want := slices.Sorted(maps.Keys(have)), slices.Sorted(slices.Values(m.labels)); !slices.Equal(got, want) || recorded.help[name] != m.help {
			t.Errorf("%s: %q, with the labels %v, want %q, %v: record %s anew", name, recorded.help[name], got, m.help, want, recordedScrape)
		}
		delete(recorded.types, name)
	}
	for name := range recorded.types {
		t.Errorf("%s has %s, which does not exist", recordedScrape, name)
	}
}

// TestMetricsDocument checks that docs/metrics.md has each metric in a table, and no other.
func TestMetricsDocument(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| (quicway_[^|]*)\|`).FindAllStringSubmatch(string(doc), -1) {
		for name := range strings.SplitSeq(row[1], ",") {
			listed[strings.TrimSpace(name)] = true
		}
	}
	for name := range allMetrics() {
		if !listed[name] {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/metrics.md has %s, which does not exist", name)
	}
}

// query is an expression of the dashboard or of an alert.
type query struct{ where, expr string }

// dashboardQueries returns the queries of the dashboard, with values for its variables.
func dashboardQueries(t *testing.T) (all []query) {
	t.Helper()
	text, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, query{fmt.Sprintf("the panel %q", p.Title), values.Replace(target.Expr)})
		}
	}
	if len(all) < 50 {
		t.Fatalf("the dashboard has %d queries: the test sees too few", len(all))
	}
	return all
}

// alertQueries returns the expressions of the alerts, and the text of the file.
func alertQueries(t *testing.T) (all []query, text string) {
	t.Helper()
	b, err := os.ReadFile("../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +- (?:alert|record): (\S+)\n +expr: (.*)$`).FindAllStringSubmatch(string(b), -1) {
		all = append(all, query{m[1], m[2]})
	}
	if len(all) < 40 {
		t.Fatalf("docs/alerts.yml has %d rules: the test sees too few", len(all))
	}
	return all, string(b)
}

// TestQueries checks that the queries of the dashboard and of the alerts name only metrics and
// labels that exist.
func TestQueries(t *testing.T) {
	recorded := readScrape(t)
	alerts, _ := alertQueries(t)
	for _, q := range append(dashboardQueries(t), alerts...) {
		for _, why := range recorded.lacks(q.expr) {
			t.Errorf("%s: %s: %s", q.where, why, q.expr)
		}
	}
	for _, expr := range []string{`quicway_no_such`, `quicway_relay_sessions_bucket`, `sum by (no) (quicway_relay_sessions)`, `quicway_relay_sessions{no="x"}`} {
		if len(recorded.lacks(expr)) == 0 {
			t.Errorf("%s passes", expr)
		}
	}
}

// lacks says which metrics and labels of a query do not exist.
func (s *scrape) lacks(expr string) (all []string) {
	labels := map[string]bool{"job": true, "instance": true, "table": true}
	for _, series := range regexp.MustCompile(`quicway_\w+`).FindAllString(expr, -1) {
		family := s.family(series)
		if family == "" {
			all = append(all, "no metric "+series)
		}
		maps.Copy(labels, s.labels[family])
	}
	names := labelName.FindAllStringSubmatch(expr, -1)
	for _, by := range regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
		for name := range strings.SplitSeq(by[1], ",") {
			names = append(names, []string{"", strings.TrimSpace(name)})
		}
	}
	for _, m := range names {
		if !labels[m[1]] {
			all = append(all, "no label "+m[1])
		}
	}
	return all
}

// TestAlertsAreComplete checks that there is a rule for each limit, and that each alert is tested
// and explained.
func TestAlertsAreComplete(t *testing.T) {
	alerts, text := alertQueries(t)
	for name := range allMetrics() {
		if strings.HasSuffix(name, "_limit") && !regexp.MustCompile(name+`\b`).MatchString(text) {
			t.Errorf("docs/alerts.yml has no rule with %s", name)
		}
	}
	for _, file := range []string{"../docs/alerts_test.yml", "../docs/metrics.md"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range alerts {
			if !strings.Contains(string(b), a.where) {
				t.Errorf("%s lacks %s", file, a.where)
			}
		}
	}
}
