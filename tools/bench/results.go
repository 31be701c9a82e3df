package main

import (
	"bufio"
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// results are the figures of benchmarks, by name, unit, and the number of the run. A run need not
// have all of them.
type results map[string]map[string]map[int]float64

// cpus matches the suffix that go test adds to the name of a benchmark.
var cpus = regexp.MustCompile(`-\d+$`)

// add adds the figures of a run, in the output of go test -bench:
//
//	BenchmarkName-8   	 1000	  12.3 ns/op	  0 B/op	  0 allocs/op
func (r results) add(run int, text []byte) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := cpus.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		for i := 2; i+1 < len(fields); i += 2 {
			if f, err := strconv.ParseFloat(fields[i], 64); err == nil {
				r.put(name, fields[i+1], run, f)
			}
		}
	}
}

func (r results) put(name, unit string, run int, f float64) {
	if r[name] == nil {
		r[name] = make(map[string]map[int]float64)
	}
	if r[name][unit] == nil {
		r[name][unit] = make(map[int]float64)
	}
	r[name][unit][run] = f
}

// median returns the middle figure of a benchmark.
func (r results) median(name, unit string) (float64, bool) {
	all := slices.Sorted(maps.Values(r[name][unit]))
	if len(all) == 0 {
		return 0, false
	}
	return all[len(all)/2], true
}

// relative returns the figures of a benchmark, each divided by that of another one in the same
// run, as figures of the name name/other. Runs that lack one of the two are left out.
func (r results) relative(name, other, unit string) string {
	both := name + "/" + other
	for run, own := range r[name][unit] {
		if base, ok := r[other][unit][run]; ok {
			r.put(both, unit, run, own/base)
		}
	}
	return both
}

// spread returns the least and the greatest figure of a benchmark.
func (r results) spread(name, unit string) (least, greatest float64) {
	all := slices.Sorted(maps.Values(r[name][unit]))
	return all[0], all[len(all)-1]
}
