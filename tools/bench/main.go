// Command bench runs the benchmarks whose figures are in docs/benchmarks.md, and prints the
// figures as tables. It runs all benchmarks of a table in turn, several times. Each figure
// is the median of these runs. A ratio is that of two medians, or, if it is printed with its spread,
// the median of the ratios within each run.
//
//	go run ./tools/bench [-run REGEXP] [-skip REGEXP] [-count N] [-w docs/benchmarks.md [-mark NAME]]
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	only := flag.String("run", ".", "tables to make, by `regexp` over their titles")
	skip := flag.String("skip", "^$", "tables not to make, in the same way")
	count := flag.Int("count", 5, "runs that each figure is the median of")
	write := flag.String("w", "", "put the tables into this `file`, between its marks")
	mark := flag.String("mark", "make bench", "the `name` of these marks")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	skipped, err := regexp.Compile(*skip)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	before := load()
	measured := make(map[string]results) // by command
	for _, t := range tables {
		if !pattern.MatchString(t.title) || skipped.MatchString(t.title) {
			continue
		}
		command := strings.Join(t.command(), " ")
		results := measured[command]
		if results == nil {
			if results, err = measure(ctx, t, *count); err != nil {
				return err
			}
			measured[command] = results
		}
		if err := t.print(&text, results); err != nil {
			return err
		}
	}
	head := fmt.Sprintf("%s, %s, %d CPUs, load %s before and %s after; %s.\n",
		kernel(), runtime.Version(), runtime.NumCPU(), before, load(), basis(*count))
	all := append([]byte(head), text.Bytes()...)
	if *write != "" {
		return replace(*write, *mark, all)
	}
	_, err = out.Write(all)
	return err
}

// measure runs all benchmarks of a table, count times in turn.
func measure(ctx context.Context, t table, count int) (results, error) {
	all := make(results)
	for i := range count {
		fmt.Fprintf(os.Stderr, "%s: run %d of %d\n", t.title, i+1, count)
		cmd := exec.CommandContext(ctx, "go", t.command()...)
		cmd.Stderr = os.Stderr
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", cmd, err, text)
		}
		all.add(i, text)
	}
	return all, nil
}

// basis says what the figures of so many runs are.
func basis(runs int) string {
	if runs == 1 {
		return "figures of one run"
	}
	return fmt.Sprintf("medians of %d runs", runs)
}

// kernel returns the name and the version of this system.
func kernel() string {
	release, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return runtime.GOOS
	}
	return string(bytes.TrimSpace(release))
}

// load returns how many threads have been running, or ready to, in the last minute.
func load() string {
	all, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	last, _, _ := strings.Cut(string(all), " ")
	return last
}

// replace replaces the text between the marks in a file.
func replace(name, mark string, text []byte) error {
	begin, end := []byte("<!-- "+mark+" -->\n"), []byte("<!-- end of "+mark+" -->\n")
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", name, begin, end)
	}
	return os.WriteFile(name, bytes.Join([][]byte{before, begin, text, end, after}, nil), 0o644)
}
