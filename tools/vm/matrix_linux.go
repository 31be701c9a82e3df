package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// row is the result for one kernel and one set of stages: a line of the output of TestStages
// in package internal/datapath.
type row struct {
	kernel, arch, perfmon string
	wanted, got           string // stages
	egress                string // whether egress packets are seen: yes, no or -
	verified              string // instructions that the verifier processed
}

// parseRow parses a line of a test's output.
func parseRow(line string) (row, bool) {
	_, text, ok := strings.Cut(line, "stages: ")
	words := strings.Fields(text)
	if !ok || len(words) != 7 {
		return row{}, false
	}
	version := regexp.MustCompile(`^\d+\.\d+`).FindString(words[0])
	return row{version, words[1], words[2], words[3], words[4], words[5], words[6]}, version != ""
}

// hostRows runs TestStages on this machine's kernel.
func hostRows(ctx context.Context) (rows []row, err error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^TestStages$", "github.com/quicway/quicway/internal/datapath").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test ./internal/datapath: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if r, ok := parseRow(line); ok {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// The lines of a file that enclose the table, and the head of the table.
const (
	begin = "<!-- make test-vm: begin -->\n"
	end   = "<!-- make test-vm: end -->\n"
	head  = "| Linux | processor | CAP_PERFMON | relay | quota | monitor | all three | egress |\n|---|---|---|---|---|---|---|---|\n"
)

// columns are the sets of stages in the table.
var columns = []string{"relay", "quota", "monitor", "relay+quota+monitor"}

// writeMatrix updates the table in a file. Lines of other kernels and processors stay.
func writeMatrix(file string, rows []row) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s lacks the lines that enclose the table", file)
	}
	lines := make(map[string]string)
	for line := range strings.Lines(strings.TrimPrefix(table, head)) {
		if cells := strings.Split(line, "|"); len(cells) > 4 {
			lines[strings.Join(cells[1:4], "|")] = line
		}
	}
	for key, cells := range byMachine(rows) {
		lines[key] = "|" + key + "| " + strings.Join(cells, " | ") + " |\n"
	}
	var out strings.Builder
	for _, key := range slices.SortedFunc(maps.Keys(lines), compareKeys) {
		out.WriteString(lines[key])
	}
	return os.WriteFile(file, []byte(before+begin+head+out.String()+end+after), 0o644)
}

// byMachine returns the cells of each line of the table, by its first three cells.
func byMachine(rows []row) map[string][]string {
	lines := make(map[string][]string)
	for _, r := range rows {
		key := fmt.Sprintf(" %s | %s | %s ", r.kernel, r.arch, r.perfmon)
		if lines[key] == nil {
			lines[key] = []string{"", "", "", "", "-"}
		}
		if column := slices.Index(columns, r.wanted); column >= 0 {
			lines[key][column] = r.cell()
		}
		if r.egress != "-" {
			lines[key][len(columns)] = map[string]string{"yes": "seen", "no": "no TCX"}[r.egress]
		}
	}
	return lines
}

// cell returns the text of a cell: the instructions that the verifier processed, or which stages
// the kernel has refused.
func (r row) cell() string {
	switch r.got {
	case r.wanted:
		return r.verified
	case "-":
		return "refused"
	}
	return r.got + " only"
}

// compareKeys orders lines by processor, and then by kernel.
func compareKeys(a, b string) int {
	x, y := strings.Split(a, "|"), strings.Split(b, "|")
	return cmp.Or(cmp.Compare(x[1], y[1]), compareVersions(x[0], y[0]), cmp.Compare(x[2], y[2]))
}
