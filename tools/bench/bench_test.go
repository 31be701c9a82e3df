package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	r := make(results)
	for run, text := range []string{
		"goos: linux\nBenchmarkX/ours-2   100   30 ns/op   9 pps   0 B/op   0 allocs/op\nBenchmarkX/peer-2 1 60.0 ns/op\nPASS\n",
		"BenchmarkX/ours-2   100   10 ns/op   0 B/op   0 allocs/op\nBenchmarkX/peer-2 1 12345678 ns/op\n",
		"BenchmarkX/ours-2   100   20 ns/op   0 B/op   2 allocs/op\nBenchmarkX/peer-2 1 2 ns/op\n",
	} {
		r.add(run, []byte(text))
	}
	tab := table{title: "T", unit: "ns/op", ours: "ours", peer: "peer", rows: []row{{"x", "X/ours", "X/peer"}}}
	var out strings.Builder
	if err := tab.print(&out, r); err != nil {
		t.Fatal(err)
	}
	if want := "| x | 20 | 60 | 0.33 | 0 |\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed %q, want it to end in %q", out.String(), want)
	}
	tab.rows[0].peer = "X/none"
	if err := tab.print(&out, r); err == nil {
		t.Error("no error for a benchmark that did not run")
	}
}

func TestFigure(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 0.55: "0.6", 9.94: "9.9", 21.4: "21", 4085: "4085", 411_216: "411 000", 4_698_146: "4 698 000",
	} {
		if got := figure(f); got != want {
			t.Errorf("%v is %q, want %q", f, got, want)
		}
	}
}

func TestReplace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(name, []byte("a\n<!-- m -->\nold\n<!-- end of m -->\nb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replace(name, "m", []byte("new\n")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != "a\n<!-- m -->\nnew\n<!-- end of m -->\nb\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(name, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replace(name, "m", nil); err == nil {
		t.Error("no error for a file without marks")
	}
}

func TestPairs(t *testing.T) {
	r := make(results)
	r.add(0, []byte("    BenchmarkT/a_b/a_b 1 55.0 ms/op\nBenchmarkT/a_b/c 1 0.0 ms/op\nBenchmarkT/c/a_b 1 84.6 ms/op\nBenchmarkT/c/c 1 7.0 ms/op\n"))
	tab := table{title: "T", bench: "T", unit: "ms/op", pairs: []string{"a b", "c"}, none: "none"}
	var out strings.Builder
	if err := tab.print(&out, r); err != nil {
		t.Fatal(err)
	}
	if want := "| | a b | c |\n|---|---:|---:|\n| a b | 55 | none |\n| c | 85 | 7.0 |\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed %q, want it to end in %q", out.String(), want)
	}
	tab.pairs = append(tab.pairs, "d")
	if err := tab.print(&out, r); err == nil {
		t.Error("no error for a pair without a figure")
	}
}

func TestExperiment(t *testing.T) {
	r := make(results)
	r.add(0, []byte("BenchmarkE/a-2 1 100 requests/s 3 p50-ms\nBenchmarkE/b-2 1 40 requests/s\n"))
	r.add(1, []byte("BenchmarkE/a-2 1 50 requests/s 5 p50-ms\nBenchmarkE/b-2 1 40 requests/s\n"))
	rows := []row{{"a", "E/a", "E/b"}, {"b", "E/b", "E/a"}}
	for want, tab := range map[string]table{
		"| | R | D |\n|---|---:|---:|\n| a | 100 (50–100) | 5.0 (3.0–5.0) |\n| b | 40 (40–40) | not here |\n": {
			rows: rows, columns: []column{{"R", "requests/s", ""}, {"D", "p50-ms", ""}},
		},
		"| | R |\n|---|---:|\n| a | 2.50 (1.25–2.50) |\n| b | 1.00 (1.00–1.00) |\n": {
			rows: rows, columns: []column{{"R", "requests/s", "E/b"}},
		},
		"| percent more or less | a | b | eQUIC's own |\n|---|---:|---:|---:|\n| R | +150 | −60 | +30.9 |\n| D | not here | not here | −65 |\n": {
			rows: rows, claims: []claim{{"R", "requests/s", "+30.9"}, {"D", "p50-ms", "−65"}},
		},
	} {
		var out strings.Builder
		if err := tab.print(&out, r); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("printed %q, want it to end in %q", out.String(), want)
		}
	}
}

// TestRelative checks that a ratio is of figures of the same run, also if a run lacks one of them.
func TestRelative(t *testing.T) {
	r := make(results)
	r.add(0, []byte("BenchmarkE/b 1 10 pps\n"))
	r.add(1, []byte("BenchmarkE/a 1 60 pps\nBenchmarkE/b 1 20 pps\n"))
	if got, ok := r.median(r.relative("E/a", "E/b", "pps"), "pps"); !ok || got != 3 {
		t.Errorf("the ratio is %v, %v, want 3", got, ok)
	}
}

// TestDocumentHasTables checks that docs/benchmarks.md has the tables that this program prints, with
// their rows.
func TestDocumentHasTables(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tab := range tables {
		if !strings.Contains(string(text), "**"+tab.title+"**") {
			t.Errorf("no table %q", tab.title)
		}
		for _, r := range tab.rows {
			if !strings.Contains(string(text), "| "+r.label+" |") {
				t.Errorf("table %q: no row %q", tab.title, r.label)
			}
		}
	}
}
