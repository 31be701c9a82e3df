package sni

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// A relay that splices is a process of its own, since its sockets have to be in the network
// namespace of a host. The test talks with it in lines.

// spliceProcess is set in such a process to a spliceSetup in JSON.
const spliceProcess = "QUICWAY_TEST_SNI_SPLICE"

// spliceSetup says what the process relays.
type spliceSetup struct {
	Listen, Upstream string
	SendProxy        int
	Idle             time.Duration
	Splice           *spliceOptions // nil: userspace
	Late             bool           // a connection has to be large and old first, as by default
	Policy           string         // one of splicePolicies; "": Always
}

// splicePolicies are policies of a process.
var splicePolicies = map[string]Policy{
	"":        Always,
	"default": DefaultPolicy,
	"leave":   func(c *Candidate) bool { return !c.InKernel || DefaultPolicy(c) },
}

// spliceOptions are what a Splice has, without its functions.
type spliceOptions struct {
	Interfaces []string
	Pin        string
	MaxSegment int
}

// spliceReport is the answer to a command.
type spliceReport struct {
	Address     string
	Stats       Stats
	Connections []Connection
	Err         string
}

// relayProcessOf is a relay on a host.
type relayProcessOf struct {
	testing.TB
	cmd     *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
	address string
	always  bool // each connection goes into the kernel
}

// startSplicing runs a relay on a host until the end of the test.
func startSplicing(t testing.TB, host *nettest.Host, setup *spliceSetup) *relayProcessOf {
	t.Helper()
	text, err := json.Marshal(setup)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSpliceProcess$")
	cmd.Env = append(os.Environ(), spliceProcess+"="+string(text))
	cmd.Stderr = os.Stderr
	r := &relayProcessOf{TB: t, cmd: cmd, always: setup.Splice != nil && !setup.Late}
	if r.input, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.output = bufio.NewReader(output)
	host.Do(cmd.Start)
	t.Cleanup(func() {
		r.input.Close()
		_ = cmd.Wait() // it ends with its input, unless the test has killed it
	})
	r.address = r.answer().Address
	return r
}

// ask sends a command and returns its answer.
func (r *relayProcessOf) ask(command string) *spliceReport {
	r.Helper()
	if _, err := io.WriteString(r.input, command+"\n"); err != nil {
		r.Fatal(err)
	}
	return r.answer()
}

func (r *relayProcessOf) answer() *spliceReport {
	r.Helper()
	line, err := r.output.ReadBytes('\n')
	report := &spliceReport{}
	if err == nil {
		err = json.Unmarshal(line, report)
	}
	if err != nil {
		r.Fatalf("the relay says %q: %v", line, err)
	}
	return report
}

func (r *relayProcessOf) splice() SpliceStats { return r.ask("stats").Stats.Splice }

// kill ends the process as kill -9 does.
func (r *relayProcessOf) kill() {
	r.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.Fatal(err)
	}
	_ = r.cmd.Wait() // says that it was killed
}

// TestSpliceProcess is the process. It ends with its input.
func TestSpliceProcess(t *testing.T) {
	text := os.Getenv(spliceProcess)
	if text == "" {
		t.Skip("only a process of other tests runs it")
	}
	setup := &spliceSetup{}
	if err := json.Unmarshal([]byte(text), setup); err != nil {
		t.Fatal(err)
	}
	var never atomic.Bool
	cfg := &Config{
		IdleTimeout: setup.Idle, MaxConnectionsPerSource: 1 << 20, MaxWaitingPerSource: 1 << 20,
		Routes: []*Route{{Names: []string{"*"}, Upstreams: []string{setup.Upstream}, SendProxy: setup.SendProxy}},
	}
	if o := setup.Splice; o != nil {
		cfg.Splice = &Splice{Interfaces: o.Interfaces, Pin: o.Pin, MaxSegment: o.MaxSegment}
		if !setup.Late {
			cfg.Splice.MinBytes, cfg.Splice.MinAge = 1, 1
		}
		policy := splicePolicies[setup.Policy]
		cfg.Splice.Policy = func(c *Candidate) bool { return !never.Load() && policy(c) }
	}
	s, err := Listen(t.Context(), "tcp", setup.Listen, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.splicer != nil && !setup.Late {
		s.splicer.pauses = pauses{spliceTick, spliceTick, spliceTick, spliceTick, spliceTick}
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	say := func(r *spliceReport) {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s\n", line)
	}
	say(&spliceReport{Address: s.Addr().String()})
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		r := &spliceReport{}
		switch command := commands.Text(); command {
		case "stats":
		case "never", "always":
			never.Store(command == "never")
		case "close":
			err = s.Close()
		case "shutdown":
			err = s.Shutdown(t.Context())
		default:
			err = fmt.Errorf("unknown command %q", command)
		}
		if err != nil {
			r.Err = err.Error()
		}
		r.Stats, r.Connections = s.Stats(), slices.Collect(s.Connections())
		r.Stats.Failed = nil // its names are not read again
		say(r)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil && !strings.Contains(err.Error(), ErrClosed.Error()) {
		t.Error(err)
	}
}
