package quicway_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/quicway/quicway/"

// importRules are the rules of ARCHITECTURE.md, by the beginning of a folder's name: the first
// rule that fits holds for the files of the folder, tests left out.
var importRules = []struct {
	folder string
	never  []string // beginnings of import paths
}{
	{"internal/test/xdptest", []string{"p2p", "relay", "quota", "monitor", "metrics"}},
	{"internal", []string{"p2p", "relay", "quota", "monitor", "metrics", "xdp"}},
	{"cid", []string{"p2p", "relay", "quota", "monitor", "metrics", "xdp", "internal/datapath"}},
	{"xdp", []string{"p2p", "relay", "quota", "monitor", "metrics"}},
	{"quota", []string{"p2p", "relay", "monitor", "metrics"}},
	{"monitor", []string{"p2p", "relay", "quota", "metrics"}},
	{"relay/sni", []string{"p2p", "relay", "monitor", "metrics"}},
	{"relay", []string{"p2p", "relay/sni", "monitor", "metrics"}},
	{"p2p", []string{"relay", "quota", "monitor", "metrics", "xdp", "internal/datapath"}},
}

// optional are modules that only some folders may import, tests left out: other importers must
// not have to build them.
var optional = map[string][]string{
	"github.com/prometheus/":    {"metrics", "examples/metrics"},
	"github.com/cilium/":        {"internal/datapath", "internal/splice", "internal/test"},
	"charm.land/":               {"examples"},
	"github.com/charmbracelet/": {"examples"},
	"github.com/chromedp/":      {"examples/monitor"}, // and there only tests do
}

// TestImports checks that packages import each other only in the order of ARCHITECTURE.md.
func TestImports(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		name = filepath.ToSlash(name)
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checked++
			if why := forbidden(path.Dir(name), imported); why != "" {
				t.Errorf("%s imports %s: %s", name, imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 500 {
		t.Errorf("%d imports were found: the test sees too few", checked)
	}
}

// TestForbidden checks that TestImports can fail.
func TestForbidden(t *testing.T) {
	for folder, imported := range map[string]string{
		"internal/udp": module + "relay", "p2p": module + "xdp", "relay": module + "p2p", "quota": "github.com/cilium/ebpf",
		"monitor": "github.com/prometheus/client_golang/prometheus", "metrics": "charm.land/bubbletea/v2",
	} {
		if forbidden(folder, imported) == "" {
			t.Errorf("%s may import %s", folder, imported)
		}
	}
	for folder, imported := range map[string]string{
		"internal/udp": module + "cid", "relay": module + "quota", "internal/datapath": "github.com/cilium/ebpf", "examples/relay": module + "p2p",
	} {
		if why := forbidden(folder, imported); why != "" {
			t.Errorf("%s may not import %s: %s", folder, imported, why)
		}
	}
}

// TestDependencies checks that who imports package p2p does not build modules that only others,
// or only tests, need.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./p2p").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"p2p") {
		t.Errorf("%d packages, without the package itself", len(deps))
	}
	for _, dep := range deps {
		for _, never := range []string{
			"github.com/cilium/", "github.com/prometheus/", "go.opentelemetry.io/", "google.golang.org/", "github.com/coder/",
			"charm.land/", "github.com/charmbracelet/", "golang.org/x/term",
		} {
			if strings.HasPrefix(dep, never) {
				t.Errorf("package p2p pulls in %s", dep)
			}
		}
	}
}

// forbidden says why a folder may not import a package, or nothing.
func forbidden(folder, imported string) string {
	for prefix, folders := range optional {
		if strings.HasPrefix(imported, prefix) && !slices.ContainsFunc(folders, func(f string) bool { return within(folder, f) }) {
			return "only " + strings.Join(folders, " and ") + " may"
		}
	}
	own, ok := strings.CutPrefix(imported, module)
	if !ok {
		return ""
	}
	for _, rule := range importRules {
		if !within(folder, rule.folder) {
			continue
		}
		if slices.ContainsFunc(rule.never, func(f string) bool { return within(own, f) }) {
			return "see ARCHITECTURE.md"
		}
		return ""
	}
	return ""
}

// within says whether a folder is another one or lies in it.
func within(folder, in string) bool { return folder == in || strings.HasPrefix(folder, in+"/") }
