package p2p

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/relay"
)

const (
	// benchClients is how many clients wait at the relay.
	benchClients = 1000
	// waitingRelay is set in the process of startWaitingRelay.
	waitingRelay = "QUICWAY_TEST_WAITING_RELAY"
)

// relayMemory is what the process of startWaitingRelay tells of itself, after a garbage
// collection.
type relayMemory struct {
	RSS, Heap, Stacks, Goroutines, Lost uint64
}

// BenchmarkWaiting has 1000 endpoints connect at once to a relay in a process of its own, and
// wait for offers. It reports the memory of the relay and of the endpoints, for each of them,
// and how many packets of the burst the relay has lost.
func BenchmarkWaiting(b *testing.B) {
	for range b.N {
		r := startWaitingRelay(b)
		ctx, cancel := context.WithCancel(context.Background())
		r.wait(ctx, b, benchClients, 10, new(warnings)) // what the first clients cost is not counted
		before, heap := r.memory(b), heapInUse()
		failures := new(warnings)
		r.wait(ctx, b, 0, benchClients, failures)
		time.Sleep(15 * time.Second) // until nothing of the burst is left to do, and no buffers are kept
		after, endpointHeap := r.memory(b), heapInUse()
		each := func(n, before uint64) float64 { return (float64(n) - float64(before)) / benchClients }
		b.ReportMetric(each(after.RSS, before.RSS)/1000, "kB-rss/client")
		b.ReportMetric(each(after.Heap, before.Heap)/1000, "kB-heap/client")
		b.ReportMetric(each(after.Stacks, before.Stacks)/1000, "kB-stacks/client")
		b.ReportMetric(each(after.Goroutines, before.Goroutines), "goroutines/client")
		b.ReportMetric(each(endpointHeap, heap)/1000, "kB-heap/endpoint")
		b.ReportMetric(float64(after.Lost-before.Lost), "lost/op")
		b.ReportMetric(float64(failures.n.Load()), "failed/op")
		cancel()
		r.close()
	}
}

// wait has n endpoints connect at once, and wait for offers. first numbers their addresses.
func (r *waitingRelayProcess) wait(ctx context.Context, b *testing.B, first, n int, failures *warnings) {
	b.Helper()
	endpoints := make([]*Endpoint, n)
	for i := range endpoints {
		endpoints[i] = r.endpoint(b, first+i, failures)
	}
	r.endpoints = append(r.endpoints, endpoints...)
	for _, e := range endpoints {
		go func() {
			for ctx.Err() == nil {
				_, _ = e.Accept(ctx) // fails if the relay is not reached at once
			}
		}()
	}
	for _, e := range endpoints {
		awaitRelay(b, e)
	}
}

// close closes the endpoints and the relay.
func (r *waitingRelayProcess) close() {
	for _, e := range r.endpoints {
		e.Close()
	}
	r.stop()
}

// warnings counts the warnings that are logged. Each is an attempt to connect that failed, or
// a connection that was lost.
type warnings struct{ n atomic.Int64 }

func (w *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler               { return w }
func (w *warnings) WithGroup(string) slog.Handler                    { return w }
func (w *warnings) Handle(context.Context, slog.Record) error {
	w.n.Add(1)
	return nil
}

// heapInUse returns the bytes of heap that are in use after a garbage collection. Two of them
// empty the pools.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// awaitRelay waits until an endpoint has a control connection.
func awaitRelay(b *testing.B, e *Endpoint) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := e.relays.acquire(e.conf.Relay)
	if err != nil {
		b.Fatal(err)
	}
	defer e.relays.release(client)
	for {
		if _, err = client.current(ctx); err == nil {
			return
		}
		if ctx.Err() != nil {
			b.Fatal(err)
		}
		sleep(ctx, minBackoff)
	}
}

// waitingRelayProcess is a relay in a process of its own.
type waitingRelayProcess struct {
	relay     Relay
	in        func(string)
	out       *bufio.Reader
	stop      func()
	endpoints []*Endpoint
}

// startWaitingRelay starts this program again as a relay.
func startWaitingRelay(b *testing.B) *waitingRelayProcess {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestWaitingRelayProcess$")
	cmd.Env = append(os.Environ(), waitingRelay+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r := &waitingRelayProcess{
		in:  func(s string) { fmt.Fprintln(stdin, s) },
		out: bufio.NewReader(stdout),
		stop: func() {
			stdin.Close()
			_ = cmd.Wait() // it ends with its input
		},
	}
	b.Cleanup(r.stop)
	line, err := r.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	if r.relay, err = ParseRelay(strings.TrimSpace(line)); err != nil {
		b.Fatal(err)
	}
	return r
}

// endpoint makes an endpoint with an address of its own.
func (r *waitingRelayProcess) endpoint(b *testing.B, i int, failures *warnings) *Endpoint {
	b.Helper()
	v4, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(1+i%250))})
	if err != nil {
		b.Fatal(err)
	}
	v6, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		b.Fatal(err)
	}
	e, err := NewEndpoint(&Config{Relay: r.relay, DisablePortMapping: true, Logger: slog.New(failures)}, v4, v6)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// memory asks the relay for its memory.
func (r *waitingRelayProcess) memory(b *testing.B) relayMemory {
	b.Helper()
	r.in("memory")
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var m relayMemory
	if err := json.Unmarshal(line, &m); err != nil {
		b.Fatal(err)
	}
	return m
}

// TestWaitingRelayProcess is the process of startWaitingRelay. It serves until its input ends,
// and answers each line with its memory.
func TestWaitingRelayProcess(t *testing.T) {
	if os.Getenv(waitingRelay) == "" {
		t.Skip("only a process of a benchmark runs it")
	}
	server, err := relay.Listen(context.Background(), "udp4", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	go server.Run(context.Background())
	defer server.Close()
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin})
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		stats := server.Stats()
		out.Encode(ownMemory(stats.Dropped[relay.DropControlQueue] + stats.ReceiveOverflow))
	}
}

// ownMemory returns the memory of this process after a garbage collection.
func ownMemory(lost uint64) relayMemory {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, _ := os.ReadFile("/proc/self/status")
	var rss uint64
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(text, &rss)
		}
	}
	return relayMemory{RSS: rss << 10, Heap: m.HeapAlloc, Stacks: m.StackInuse, Goroutines: uint64(runtime.NumGoroutine()), Lost: lost}
}
