package quicway_test

import (
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// outside is a new module in a folder of its own, which requires this one as it is here, and
// else what this one requires.
type outside struct {
	*testing.T
	dir string
}

// TestOutside checks that the documents hold for others: in a new module outside this tree, all
// examples, of which the code in the documents is part (TestDocsExamples), and the whole
// programs in the documents pass vet, and these programs do what they say. The tests of the
// packages run the examples.
func TestOutside(t *testing.T) {
	if nettest.RaceDetector {
		t.Skip("it builds everything without the race detector, as the run without that does")
	}
	m := newOutside(t)
	m.copyExamples()
	programs := m.writePrograms()
	// Not the check of the examples' names, which looks for their packages in this module.
	if err := m.goTool("vet", "-tests=false", "./..."); err != nil {
		t.Fatal(err)
	}
	m.runPrograms(programs)
}

// TestOutsideFails checks that TestOutside can fail: by a name that does not exist, and by a
// package that others cannot import.
func TestOutsideFails(t *testing.T) {
	m := newOutside(t)
	for _, test := range []struct{ name, imported, body, want string }{
		{"unknown", "p2p", "p2p.NoSuchName()", "undefined: p2p.NoSuchName"},
		{"internal", "internal/wire", "_ = wire.NoSuchName", "use of internal package"},
	} {
		code := fmt.Appendf(nil, "package main\nimport %q\nfunc main() { %s }\n", module+test.imported, test.body)
		m.write(filepath.Join(test.name, "main.go"), code)
		if err := m.goTool("vet", "./"+test.name); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	tree, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	m := &outside{t, t.TempDir()}
	this := strings.TrimSuffix(module, "/")
	_, requirements, _ := strings.Cut(read(t, "go.mod"), "\n")
	requirements = regexp.MustCompile(`(?ms)^tool \(.*?^\)`).ReplaceAllString(requirements, "")
	m.write("go.mod", fmt.Appendf(nil, "module outside.example\n%s\nrequire %s v0.0.0\n\nreplace %[2]s => %q\n",
		requirements, this, tree))
	m.write("go.sum", []byte(read(t, "go.sum")))
	return m
}

// write writes a file into the module.
func (m *outside) write(name string, text []byte) {
	m.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		m.Fatal(err)
	}
}

// goTool runs the go command in the module.
func (m *outside) goTool(args ...string) error {
	cmd := exec.CommandContext(m.Context(), "go", args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %q: %w\n%s", args, err, out)
	}
	return nil
}

// copyExamples copies the files with examples, each to a folder of its package's name, and the
// capture that some of them read.
func (m *outside) copyExamples() {
	m.Helper()
	for _, name := range append(glob(m.T, "*/example_test.go"), glob(m.T, "*/*/example_test.go")...) {
		m.write(name, []byte(read(m.T, name)))
	}
	const capture = "examples/monitor/testdata/sample.pcap"
	m.write(capture, []byte(read(m.T, capture)))
}

// isProgram matches code that is a whole program, and finds its name, with which its comment
// begins.
var isProgram = regexp.MustCompile(`(?s)^// (\w+) .*\npackage main\n`)

// writePrograms writes the whole programs in the documents, word for word, each into a folder of
// its name in programs, and returns their names.
func (m *outside) writePrograms() []string {
	m.Helper()
	var names []string
	for _, doc := range documents(m.T) {
		for _, code := range codeOf(m.T, doc) {
			found := isProgram.FindStringSubmatch(code)
			if found == nil {
				continue
			}
			name := strings.ToLower(found[1])
			if text, err := format.Source([]byte(code)); err != nil || string(text) != code {
				m.Errorf("%s: gofmt would change %s: %v", doc, name, err)
			}
			names = append(names, name)
			m.write(filepath.Join("programs", name, "main.go"), []byte(code))
		}
	}
	return names
}

// codeOf returns the Go code in a document.
func codeOf(t *testing.T, doc string) (blocks []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(read(t, doc), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}
