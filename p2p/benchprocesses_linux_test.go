package p2p

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// benchRole is the environment variable that makes this program a process of
// BenchmarkProcesses, and says which one.
const benchRole = "QUICWAY_BENCH_ROLE"

// BenchmarkProcesses is about two peers and a relay that are processes of their own, all on this
// host. It transfers data on one stream, one op being 1 MiB, and makes connections, several at a
// time, one op being one. All ways are open at the same time, and used in turn.
func BenchmarkProcesses(b *testing.B) {
	s := startBenchProcesses(b)
	for _, way := range []string{"plain", "direct", "relayed", "TLS", "TLS-relayed"} {
		b.Run(way, func(b *testing.B) {
			took, cpu := s.do(b, "stream "+way)
			b.ReportMetric(float64(b.N)*benchChunk/1e6/took.Seconds(), "MB/s")
			perGB := 1e9 / (float64(b.N) * benchChunk * float64(time.Millisecond))
			b.ReportMetric(float64(cpu.peers+cpu.relay)*perGB, "cpu-ms/GB")
			b.ReportMetric(float64(cpu.relay)*perGB, "relay-cpu-ms/GB")
		})
	}
	for _, way := range []string{"plain", "relayed"} {
		b.Run("dial-"+way, func(b *testing.B) {
			took, cpu := s.do(b, "dial "+way)
			b.ReportMetric(float64(b.N)/took.Seconds(), "dials/s")
			b.ReportMetric(float64((cpu.peers+cpu.relay).Microseconds())/float64(b.N), "cpu-us/dial")
			b.ReportMetric(float64(cpu.relay.Microseconds())/float64(b.N), "relay-cpu-us/dial")
		})
	}
}

// benchProcesses are the processes of BenchmarkProcesses.
type benchProcesses struct{ relay, from, to *benchProcess }

// benchCPU is CPU time.
type benchCPU struct{ peers, relay time.Duration }

func startBenchProcesses(b *testing.B) *benchProcesses {
	b.Helper()
	host := benchHost(b).String()
	s := &benchProcesses{relay: startBenchProcess(b, "relay", host)}
	at := s.relay.line(b)
	s.to = startBenchProcess(b, "to", host, at)
	to := s.to.line(b)
	s.from = startBenchProcess(b, "from", host, at, to)
	s.from.line(b) // all ways are open
	return s
}

// do has the peers do something b.N times, and returns for how long, and the CPU time.
func (s *benchProcesses) do(b *testing.B, what string) (took time.Duration, spent benchCPU) {
	b.Helper()
	before := s.cpu(b)
	took = s.from.ask(b, fmt.Sprint(what, " ", b.N))
	after := s.cpu(b)
	return took, benchCPU{peers: after.peers - before.peers, relay: after.relay - before.relay}
}

func (s *benchProcesses) cpu(b *testing.B) benchCPU {
	b.Helper()
	return benchCPU{peers: s.from.ask(b, "cpu") + s.to.ask(b, "cpu"), relay: s.relay.ask(b, "cpu")}
}

// benchProcess is this program as one of the processes.
type benchProcess struct {
	in  io.Writer
	out *bufio.Reader
}

func startBenchProcess(b *testing.B, role ...string) *benchProcess {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBenchProcess$")
	cmd.Env = append(os.Environ(), benchRole+"="+strings.Join(role, " "))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it ends with its input
	})
	return &benchProcess{in, bufio.NewReader(out)}
}

// line returns the next line that the process prints.
func (p *benchProcess) line(b *testing.B) string {
	b.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// ask gives a command, and returns the time in the answer.
func (p *benchProcess) ask(b *testing.B, command string) time.Duration {
	b.Helper()
	fmt.Fprintln(p.in, command)
	took, err := time.ParseDuration(p.line(b))
	if err != nil {
		b.Fatal(command, ": ", err)
	}
	return took
}
