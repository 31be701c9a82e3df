package metrics

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// promtool runs promtool, which comes with Prometheus, and fails the test if promtool does.
func promtool(t *testing.T, input []byte, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		nettest.Missing(t, "promtool is not installed")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestCheckMetrics has promtool check the names, types and texts of all metrics.
func TestCheckMetrics(t *testing.T) {
	text, err := os.ReadFile(recordedScrape)
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, text, "check", "metrics")
}

// TestAlerts has promtool check and test the alerts.
func TestAlerts(t *testing.T) {
	promtool(t, nil, "check", "rules", "../docs/alerts.yml")
	promtool(t, nil, "test", "rules", "../docs/alerts_test.yml")
}

// TestDashboard has promtool run the queries of the dashboard. The series are those of the
// recorded scrape: a counter grows by its recorded value each minute, and a gauge stays. A histogram
// that has recorded nothing grows as well, since a quantile of nothing is NaN. Each
// query must yield a number: NaN, which is no number, does not equal itself.
func TestDashboard(t *testing.T) {
	rules, err := filepath.Abs("../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	recorded := readScrape(t)
	var out strings.Builder
	fmt.Fprintf(&out, "rule_files: [%q]\nevaluation_interval: 5m\ntests:\n- interval: 1m\n  input_series:\n", rules)
	for _, s := range recorded.samples {
		values := strings.Replace(s.value, "+Inf", "Inf", 1) + "+0x10"
		if recorded.types[recorded.family(s.name)] != "gauge" {
			growth := s.value
			if growth == "0" && strings.HasSuffix(s.name, "_bucket") {
				growth = "1"
			}
			values = "0+" + growth + "x10"
		}
		labels := `{job="j",instance="i"}`
		if s.labels != "" {
			labels = strings.TrimSuffix(s.labels, "}") + `,job="j",instance="i"}`
		}
		fmt.Fprintf(&out, "  - {series: '%s%s', values: '%s'}\n", s.name, labels, values)
	}
	fmt.Fprintln(&out, "  promql_expr_test:")
	for _, q := range dashboardQueries(t) {
		fmt.Fprintf(&out, "  - {expr: 'count((%s) == (%[1]s)) > bool 0', eval_time: 10m, exp_samples: [{labels: '{}', value: 1}]}\n", q.expr)
	}
	file := filepath.Join(t.TempDir(), "dashboard_test.yml")
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "test", "rules", file)
}
