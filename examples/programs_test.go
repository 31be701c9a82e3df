// Package examples_test runs the example programs as processes.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long the programs of a test may take together.
const patience = 5 * time.Minute

// scene is a folder in which the programs run.
type scene struct {
	*testing.T
	dir  string
	ctx  context.Context
	keys string // the file of SSLKEYLOGFILE; empty: none
}

// newScene makes a scene. It builds the programs if no test has done so.
func newScene(t *testing.T) *scene {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &scene{T: t, dir: t.TempDir(), ctx: ctx}
}

// command returns a program that has not started. Its standard input is empty.
func (s *scene) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, filepath.Join(programs, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "AppData="+s.dir, "SSLKEYLOGFILE="+s.keys, "QUICWAY_RELAY=")
	return cmd
}

// run runs a program to its end.
func (s *scene) run(name string, args ...string) (stdout, stderr string, code int) {
	s.Helper()
	cmd := s.command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	code = s.code(cmd.Run())
	return out.String(), errs.String(), code
}

// code returns the exit code that an error of package exec means.
func (s *scene) code(err error) int {
	s.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	s.Fatal(err)
	return -1
}

// process is a program that runs.
type process struct {
	*scene
	cmd  *exec.Cmd
	rest chan string // gets the rest of what it has printed
}

// start starts a program, and returns what a pattern finds in a line that it prints on the
// standard output or, if that is kept, on standard error.
func (s *scene) start(kept *bytes.Buffer, pattern, name string, args ...string) (*process, string) {
	s.Helper()
	if kept == nil {
		return s.startTo(nil, pattern, name, args...)
	}
	return s.startTo(kept, pattern, name, args...)
}

// startTo is start with a writer that gets the standard output, or nil.
func (s *scene) startTo(kept io.Writer, pattern, name string, args ...string) (*process, string) {
	s.Helper()
	p := &process{s, s.command(name, args...), make(chan string, 1)}
	r, w, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	if p.cmd.Stdout = w; kept != nil {
		p.cmd.Stdout, p.cmd.Stderr = kept, w
	}
	if err := errors.Join(p.cmd.Start(), w.Close()); err != nil {
		s.Fatal(err)
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			s.Fatalf("%s has not printed %s: %v", name, pattern, errors.Join(err, p.cmd.Wait()))
		}
		if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
			go func() {
				defer r.Close()
				rest, _ := io.ReadAll(lines)
				p.rest <- string(rest)
			}()
			return p, m[1]
		}
	}
}

// wait waits for the end of a program, and returns its exit code, and what it has printed
// since start.
func (p *process) wait() (code int, rest string) {
	p.Helper()
	code = p.code(p.cmd.Wait())
	return code, <-p.rest
}

// interrupt ends a program as Ctrl-C does.
func (p *process) interrupt() {
	p.Helper()
	if runtime.GOOS == "windows" { // has no such signal
		_ = p.cmd.Process.Kill()
		return
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.Fatal(err)
	}
}

// ended is the exit code of a program that runs until it is interrupted.
func ended() int {
	if runtime.GOOS == "windows" { // it was killed
		return 1
	}
	return 0
}

// relayURL finds the URL of a relay, and shownID the ID of a peer.
const (
	relayURL = `^(quicway://.*)\n`
	shownID  = `^dial -to (\w+) FILE\n`
)

// TestCommandLines checks the command lines of all programs of this system.
func TestCommandLines(t *testing.T) {
	names := []string{"accept", "dial", "forward", "http3", "metrics", "monitor", "quickstart", "quota", "relay", "sni"}
	if runtime.GOOS == "linux" {
		names = append(names, "nat")
	}
	newScene(t).testCommandLines(names)
}

// TestPrograms runs programs together: their exit codes and errors, an identity that lasts, a
// peer that has a name, and what is written for debugging.
func TestPrograms(t *testing.T) {
	s := newScene(t)
	relay, url := s.start(nil, relayURL, "relay", "-listen", "127.0.0.1:0", "-secret", "relay.key")
	s.testWrongPin(url)

	sent := filepath.Join(s.dir, "sent")
	if err := os.WriteFile(sent, bytes.Repeat([]byte("quicway\n"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var first string
	for i, to := range []string{"", "bob"} { // by ID, then by name
		var got bytes.Buffer
		bob, id := s.start(&got, shownID, "accept", "-relay", url, "-identity", "bob.key")
		args := []string{"-relay", url, "-identity", "alice.key", "-peers", "names", "-qlog", "qlog", "-to", to, sent}
		if i == 0 {
			first = id
			args = append([]string{"-remember", "bob"}, args...)
			args[len(args)-2] = id
			if err := os.WriteFile(filepath.Join(s.dir, "names"), []byte("# mine\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if id != first {
			t.Errorf("the ID is %s, and was %s before", id, first)
		}
		if _, stderr, code := s.run("dial", args...); code != 0 || i == 1 && !strings.Contains(stderr, "connected to bob ("+id+")") {
			t.Errorf("dial: exit code %d: %s", code, stderr)
		}
		if code, rest := bob.wait(); code != 0 || got.Len() != 80_000 {
			t.Errorf("accept: exit code %d, %d bytes: %s", code, got.Len(), rest)
		}
	}
	if b, err := os.ReadFile(filepath.Join(s.dir, "names")); err != nil || string(b) != "# mine\nbob "+first+"\n" {
		t.Errorf("names: %q, %v", b, err)
	}
	if logs, err := filepath.Glob(filepath.Join(s.dir, "qlog", "*_client.sqlog")); len(logs) != 2 {
		t.Errorf("qlog: %q, %v", logs, err)
	}
	s.testRemember(url, sent)
	s.testQR(url, sent)
	s.testClosedPipe(url, sent)
	waiting, _ := s.start(new(bytes.Buffer), shownID, "accept", "-relay", url)
	waiting.interrupt()
	relay.interrupt()
	if code, rest := relay.wait(); code != ended() {
		t.Errorf("relay: exit code %d after an interrupt: %s", code, rest)
	}
	if code, rest := waiting.wait(); code != 1 || runtime.GOOS != "windows" && !strings.HasSuffix(rest, "accept: interrupted\n") {
		t.Errorf("accept: exit code %d after an interrupt: %s", code, rest)
	}
}

// testRemember checks that a name which nobody can have does not keep a file from being sent.
func (s *scene) testRemember(url, file string) {
	s.Helper()
	var got bytes.Buffer
	bob, id := s.start(&got, shownID, "accept", "-relay", url)
	if _, stderr, code := s.run("dial", "-relay", url, "-peers", "names", "-remember", "no name", "-to", id, file); code != 1 || !strings.Contains(stderr, "no name") {
		s.Errorf("dial: exit code %d: %s", code, stderr)
	}
	if code, rest := bob.wait(); code != 0 || got.Len() != 80_000 {
		s.Errorf("accept: exit code %d, %d bytes: %s", code, got.Len(), rest)
	}
}

// testClosedPipe checks that dial learns at once that nobody reads what accept prints.
func (s *scene) testClosedPipe(url, file string) {
	s.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	defer w.Close()
	r.Close()
	bob, id := s.startTo(w, shownID, "accept", "-relay", url)
	if _, stderr, code := s.run("dial", "-relay", url, "-to", id, file); code != 1 || !strings.Contains(stderr, "the other side closed the connection early: write") {
		s.Errorf("dial: exit code %d: %s", code, stderr)
	}
	if code, rest := bob.wait(); code != 1 || !strings.Contains(rest, "accept: write") {
		s.Errorf("accept: exit code %d: %s", code, rest)
	}
}

// testQR checks that the QR code of an offer is small enough for a terminal, and that the
// offer is answered.
func (s *scene) testQR(url, file string) {
	s.Helper()
	dial, offer := s.start(new(bytes.Buffer), `^accept (quicway1\..*)\n`, "dial", "-relay", url, "-qr", file)
	stdout, stderr, code := s.run("accept", "-relay", url, offer)
	if code != 0 || len(stdout) != 80_000 {
		s.Errorf("accept: exit code %d, %d bytes: %s", code, len(stdout), stderr)
	}
	code, rest := dial.wait()
	qr := printedQR(rest)
	if width, height := qr.size(); code != 0 || width < 40 || width > 100 || height < 20 || height > 50 {
		s.Errorf("dial: exit code %d, a code of %d columns and %d rows: %s", code, width, height, rest)
	}
	s.Run("scan", func(t *testing.T) {
		if got := qr.scan(t); got != offer {
			t.Errorf("the code says %q, want %q", got, offer)
		}
	})
}

// testCommandLines checks -h, -version, and what a wrong command line leads to.
func (s *scene) testCommandLines(names []string) {
	s.Helper()
	for _, name := range names {
		for _, test := range []struct {
			args           []string
			code           int
			stdout, stderr string // patterns
		}{
			{[]string{"-h"}, 0, `(?s)^` + name + ` .*\nusage:\n(  ` + name + ` -?.*\n    \t.*\n){2,}.*flags:`, `^$`},
			{[]string{"-version"}, 0, `^` + name + ` \S+.*, quic-go v\S+, go\S+ \S+\n$`, `^$`},
			{[]string{"-nonsense"}, 2, `^$`, `^` + name + `: flag provided but not defined: -nonsense \(.*-h.*\)\n$`},
			{[]string{"a", "b"}, 2, `^$`, `^` + name + `: (unexpected argument "."|give one capture file)[^\n]*\n$`},
		} {
			stdout, stderr, code := s.run(name, test.args...)
			if code != test.code || !regexp.MustCompile(test.stdout).MatchString(stdout) || !regexp.MustCompile(test.stderr).MatchString(stderr) {
				s.Errorf("%s %q: exit code %d, %q, %q", name, test.args, code, stdout, stderr)
			}
		}
	}
	wrong := [][]string{
		{"dial"}, {"dial", "-relay", "nonsense"}, {"accept"}, {"relay", "-tunnel", "99999"}, {"forward"}, {"forward", "-to", "bob"}, {"forward", "-L", "1:x:2"},
		{"quota", "-cert", "x"}, {"http3", "-key", "x"}, {"metrics", "-every", "0"}, {"relay", "-xdp-pin", "x"},
		{"relay", "-listen", "127.0.0.1:0", "-host", "relay.example.org:99999"},
		{"relay", "-listen", "127.0.0.1:0", "-host", "https://relay.example.org"},
	}
	if slices.Contains(names, "nat") {
		wrong = append(wrong, []string{"nat", "-size", "-1"}, []string{"nat", "-delay", "-1s"})
	}
	for _, args := range wrong {
		if _, stderr, code := s.run(args[0], args[1:]...); code != 2 || strings.Count(stderr, "\n") != 1 {
			s.Errorf("%q: exit code %d, %q", args, code, stderr)
		}
	}
}

// testWrongPin checks that the error of dial is one line with both pins.
func (s *scene) testWrongPin(url string) {
	s.Helper()
	const other = "gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq"
	before, pin, _ := strings.Cut(url, "pin=")
	_, stderr, code := s.run("dial", "-relay", before+"pin="+other, "-to", other)
	if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, pin) || !strings.Contains(stderr, other) {
		s.Errorf("a wrong pin: exit code %d, %q", code, stderr)
	}
}

// TestFrame checks that each program has the same frame.
func TestFrame(t *testing.T) {
	mains, err := filepath.Glob("*/main*.go")
	if err != nil {
		t.Fatal(err)
	}
	programs := 0
	for _, file := range mains {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		programs++
		text := string(b)
		if !strings.Contains(text, "program.Program{") || strings.Count(text, "{Args: ") < 2 || strings.Contains(text, "os.Exit") {
			t.Errorf("%s does not use package program, or shows fewer than two uses", file)
		}
	}
	if programs < 11 {
		t.Errorf("%d programs were found", programs)
	}
}
