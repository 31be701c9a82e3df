package quicway_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	goRun = regexp.MustCompile("(?:go|\\$\\(GO\\)) run \\./((?:examples|tools)/\\w+)([^\n`#|>]*)")
	quote = regexp.MustCompile(`'[^']*'`)
	// aFlag is an option of a command line, and declared is where a program declares one.
	aFlag    = regexp.MustCompile(`\s--?([A-Za-z][\w-]*)`)
	declared = regexp.MustCompile(
		`\.(?:\w*Var|Func|Bool|String|Int|Int64|Uint|Duration|Float64)\((?:&?[\w.]+, )?"([\w-]+)"`)
)

// TestDocsCommands checks that the programs which the documents, the Makefile and the comments of
// packages run exist, and have these flags.
func TestDocsCommands(t *testing.T) {
	checked := 0
	for _, doc := range slices.Concat(documents(t), []string{"Makefile"}, glob(t, "examples/*/main*.go")) {
		text := strings.ReplaceAll(read(t, doc), "\\\n", " ")
		for _, m := range goRun.FindAllStringSubmatch(text, -1) {
			checked++
			if why := lacksFlag(t, m[1], m[2]); why != "" {
				t.Errorf("%s: %s: %s", doc, m[0], why)
			}
		}
	}
	if checked < 30 {
		t.Errorf("%d commands were found: the test sees too few", checked)
	}
}

// TestLacksFlag checks that TestDocsCommands can fail.
func TestLacksFlag(t *testing.T) {
	for _, test := range []struct{ program, args, want string }{
		{"examples/nothing", "", "no such program"},
		{"examples/relay", " -listen :4433 -nonsense 1", "no flag -nonsense"},
		{"examples/forward", " -L 1:localhost:2 -xdp eth0", "no flag -xdp"},
		{"examples/monitor", " -filter 'host -nonsense' -i eth0 FILE", ""},
	} {
		if got := lacksFlag(t, test.program, test.args); got != test.want {
			t.Errorf("%s%s: %q, want %q", test.program, test.args, got, test.want)
		}
	}
}

// lacksFlag says what a command line needs that its program does not have, or nothing.
func lacksFlag(t *testing.T, program, args string) string {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		return "no such program"
	}
	flags := map[string]bool{"h": true}
	for _, folder := range []string{program, "examples/internal"} {
		err := filepath.WalkDir(folder, func(name string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
				for _, m := range declared.FindAllStringSubmatch(read(t, name), -1) {
					flags[m[1]] = true
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range aFlag.FindAllStringSubmatch(quote.ReplaceAllString(args, ""), -1) {
		if !flags[m[1]] {
			return "no flag -" + m[1]
		}
	}
	return ""
}
