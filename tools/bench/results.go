package main

import (
	"bufio"
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// results are the figures of benchmarks, by name and unit, run by run.
type results map[string]map[string][]float64

// cpus matches the suffix that go test adds to the name of a benchmark.
var cpus = regexp.MustCompile(`-\d+$`)

// add adds the figures in the output of go test -bench:
//
//	BenchmarkName-8   	 1000	  12.3 ns/op	  0 B/op	  0 allocs/op
func (r results) add(text []byte) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := cpus.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		if r[name] == nil {
			r[name] = make(map[string][]float64)
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if f, err := strconv.ParseFloat(fields[i], 64); err == nil {
				r[name][fields[i+1]] = append(r[name][fields[i+1]], f)
			}
		}
	}
}

// median returns the middle figure of a benchmark.
func (r results) median(name, unit string) (float64, bool) {
	all := slices.Sorted(slices.Values(r[name][unit]))
	if len(all) == 0 {
		return 0, false
	}
	return all[len(all)/2], true
}

// relative returns the figures of a benchmark, each divided by that of another one in the same
// run, as figures of the name name/other.
func (r results) relative(name, other, unit string) string {
	own, base := r[name][unit], r[other][unit]
	both := name + "/" + other
	if r[both] == nil {
		r[both] = make(map[string][]float64)
	}
	r[both][unit] = nil
	for i := range min(len(own), len(base)) {
		r[both][unit] = append(r[both][unit], own[i]/base[i])
	}
	return both
}

// spread returns the least and the greatest figure of a benchmark.
func (r results) spread(name, unit string) (least, greatest float64) {
	all := r[name][unit]
	return slices.Min(all), slices.Max(all)
}
