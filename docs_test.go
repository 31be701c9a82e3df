package quicway_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocsExamples checks that the Go code in the documents is part of an example, or is a whole
// program. TestOutside builds both.
func TestDocsExamples(t *testing.T) {
	var code strings.Builder
	for _, name := range append(glob(t, "*/example_test.go"), glob(t, "*/*/example_test.go")...) {
		code.WriteString(flat(read(t, name)))
	}
	blocks := 0
	for _, doc := range documents(t) {
		for _, block := range codeOf(t, doc) {
			blocks++
			if !isProgram.MatchString(block) && !strings.Contains(code.String(), flat(block)) {
				t.Errorf("%s: in no example_test.go:\n%s", doc, block)
			}
		}
	}
	if blocks < 5 {
		t.Errorf("the documents show %d pieces of code", blocks)
	}
}

// TestDocsLength checks that the two documents that everybody reads stay short.
func TestDocsLength(t *testing.T) {
	for _, doc := range []string{"README.md", "ARCHITECTURE.md"} {
		if n := strings.Count(read(t, doc), "\n"); n > 200 {
			t.Errorf("%s has %d lines, want at most 200", doc, n)
		}
	}
}

// TestDocsNames checks that the documents name only what exists: files, tests, make targets,
// identifiers and links.
func TestDocsNames(t *testing.T) {
	tree := readTree(t)
	code := regexp.MustCompile("`([^`\n]+)`")
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	fence := regexp.MustCompile("(?s)```.*?```")
	command := regexp.MustCompile(`(?m)^make ([a-z-]+)`)
	checked := 0
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, m[1])
			}
		}
		if doc == "CHANGELOG.md" {
			continue // it also names what has been removed
		}
		for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			checked++
			if why := tree.lacks(m[1]); why != "" {
				t.Errorf("%s names `%s`: %s", doc, m[1], why)
			}
		}
		for _, block := range fence.FindAllString(text, -1) {
			for _, m := range command.FindAllStringSubmatch(block, -1) {
				if !tree.targets[m[1]] {
					t.Errorf("%s names make %s, which is no target", doc, m[1])
				}
			}
		}
	}
	if checked < 200 {
		t.Errorf("%d names were found in the documents: the test sees too few", checked)
	}
}

// TestTreeLacks checks that TestDocsNames can fail.
func TestTreeLacks(t *testing.T) {
	tree := readTree(t)
	for _, name := range []string{
		"relay/nothing.go", "nothing.go", "internal/nothing", "TestNothing", "relay.TestDirect", "make nothing",
		"relay.NoSuchName", "relay.Config.NoSuchName", "Config.NoSuchName", "NoSuchName", "find_nothing",
	} {
		if tree.lacks(name) == "" {
			t.Errorf("%s passes", name)
		}
	}
	for _, name := range []string{
		"relay/config.go", "relay.h", "internal/wire", "TestDocsNames", "p2p.TestDirect", "make bench",
		"relay.Config", "relay.Config.Secret", "Config.Secret", "VerifySourceAddress", "find_leg", "eth0",
	} {
		if why := tree.lacks(name); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// tree is what the documents may name.
type tree struct {
	files    map[string]bool            // paths and base names
	tests    map[string]map[string]bool // by package directory's base name
	names    map[string]map[string]bool // identifiers, by package directory's base name
	allNames map[string]bool            // identifiers of Go and C
	targets  map[string]bool            // of the Makefile
}

func readTree(t *testing.T) *tree {
	t.Helper()
	tr := &tree{
		files: make(map[string]bool), tests: make(map[string]map[string]bool),
		names: make(map[string]map[string]bool), allNames: make(map[string]bool), targets: make(map[string]bool),
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		tr.targets[m[1]] = true
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == ".git" {
			return errOr(err, d)
		}
		path = filepath.ToSlash(path)
		tr.files[path], tr.files[d.Name()] = true, true
		switch filepath.Ext(path) {
		case ".go":
			tr.readGo(t, path)
		case ".h", ".c":
			for _, word := range regexp.MustCompile(`\w+`).FindAllString(read(t, path), -1) {
				tr.allNames[word] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func errOr(err error, d fs.DirEntry) error {
	if err == nil && d.IsDir() {
		return fs.SkipDir
	}
	return err
}

func (tr *tree) readGo(t *testing.T, path string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg := filepath.Base(filepath.Dir(path))
	if tr.names[pkg] == nil {
		tr.names[pkg], tr.tests[pkg] = make(map[string]bool), make(map[string]bool)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			tr.names[pkg][id.Name], tr.allNames[id.Name] = true, true
		}
		return true
	})
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && isTest.MatchString(f.Name.Name) {
			tr.tests[pkg][f.Name.Name] = true
		}
	}
}

var (
	isTest     = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]\w*$`)
	isFile     = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*(\.(go|h|c|md|sh)|/[\w.-]+)$`)
	isName     = regexp.MustCompile(`^[A-Z]\w*[a-z]\w*(\.[A-Z]\w*)*$|^[a-z]+(_[a-z0-9]+)+$`)
	isPackaged = regexp.MustCompile(`^([a-z0-9]+)\.([A-Z]\w*)((?:\.[A-Z]\w*)*)$`)
)

// lacks says why a name that a document has in backticks does not exist, or nothing.
func (tr *tree) lacks(name string) string {
	if target, ok := strings.CutPrefix(strings.TrimPrefix(name, "sudo "), "make "); ok {
		if !tr.targets[strings.Fields(target)[0]] {
			return "no such target"
		}
		return ""
	}
	if m := isPackaged.FindStringSubmatch(name); m != nil {
		return tr.lacksPackaged(m[1], m[2], strings.Split(strings.TrimPrefix(m[3], "."), "."))
	}
	switch {
	case isTest.MatchString(name):
		for _, tests := range tr.tests {
			if tests[name] {
				return ""
			}
		}
		return "no such test"
	case isFile.MatchString(name):
		folder, _, _ := strings.Cut(name, "/")
		if tr.files[folder] && !tr.files[name] || folder == name && !tr.files[name] {
			return "no such file"
		}
	case isName.MatchString(name):
		for part := range strings.SplitSeq(name, ".") {
			if !tr.allNames[part] {
				return "no such identifier: " + part
			}
		}
	}
	return ""
}

func (tr *tree) lacksPackaged(pkg, name string, members []string) string {
	if tr.names[pkg] == nil {
		return "" // of another module
	}
	if isTest.MatchString(name) {
		if !tr.tests[pkg][name] {
			return "no such test in " + pkg
		}
		return ""
	}
	for _, part := range append([]string{name}, slices.DeleteFunc(members, func(s string) bool { return s == "" })...) {
		if !tr.names[pkg][part] {
			return "package " + pkg + " has no " + part
		}
	}
	return ""
}

// documents returns the documents, all of them in Markdown.
func documents(t *testing.T) []string {
	t.Helper()
	return slices.Concat(glob(t, "*.md"), glob(t, "docs/*.md"), glob(t, "docs/design/*.md"))
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// flat is text without its indentation.
func flat(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimLeft(line, "\t"))
	}
	return out.String()
}
