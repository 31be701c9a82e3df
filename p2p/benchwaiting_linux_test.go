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
	// waitingServer is set in the process of startWaiting, to what it serves: waitsAtRelay,
	// waitsAtHTTP or waitsAtQUIC.
	waitingServer = "QUICWAY_TEST_WAITING_SERVER"
	waitsAtRelay  = "relay"
)

// serverMemory is what the process of startWaiting tells of itself, after a garbage
// collection.
type serverMemory struct {
	RSS, Heap, Stacks, Goroutines, Lost uint64
}

// BenchmarkWaiting has 1000 clients connect at once to a server in a process of its own, and wait: to
// a relay for offers, and to servers of quic-go alone.
func BenchmarkWaiting(b *testing.B) {
	b.Run(waitsAtRelay, benchWaitingAtRelay)
	b.Run(waitsAtHTTP, func(b *testing.B) { benchWaitingAlone(b, waitsAtHTTP, waitForHTTP) })
	b.Run(waitsAtQUIC, func(b *testing.B) { benchWaitingAlone(b, waitsAtQUIC, waitForQUIC) })
}

// benchWaitingAtRelay reports the memory of the relay and of the endpoints, for each of them, and how
// many packets of the burst the relay has lost.
func benchWaitingAtRelay(b *testing.B) {
	for range b.N {
		r := startWaiting(b, waitsAtRelay)
		ctx, cancel := context.WithCancel(context.Background())
		r.wait(ctx, b, benchClients(), 10, new(warnings)) // what the first clients cost is not counted
		before, heap := r.memory(b), heapInUse()
		failures := new(warnings)
		r.wait(ctx, b, 0, benchClients(), failures)
		time.Sleep(afterBurst())
		after, endpointHeap := r.memory(b), heapInUse()
		after.report(b, before)
		b.ReportMetric(each(endpointHeap, heap)/1000, "kB-heap/endpoint")
		b.ReportMetric(float64(after.Lost-before.Lost), "lost/op")
		b.ReportMetric(float64(failures.n.Load()), "failed/op")
		cancel()
		r.close()
	}
}

// benchClients is how many clients wait.
func benchClients() int {
	if testing.Short() {
		return 50
	}
	return 1000
}

// afterBurst is how long after a burst nothing of it is left to do, and no buffers are kept.
func afterBurst() time.Duration {
	if testing.Short() {
		return time.Second
	}
	return 15 * time.Second
}

// each returns for one client what all have added.
func each(n, before uint64) float64 { return (float64(n) - float64(before)) / float64(benchClients()) }

// report reports what all clients have added to the memory since before.
func (m *serverMemory) report(b *testing.B, before serverMemory) {
	b.ReportMetric(each(m.RSS, before.RSS)/1000, "kB-rss/client")
	b.ReportMetric(each(m.Heap, before.Heap)/1000, "kB-heap/client")
	b.ReportMetric(each(m.Stacks, before.Stacks)/1000, "kB-stacks/client")
	b.ReportMetric(each(m.Goroutines, before.Goroutines), "goroutines/client")
}

// wait has n endpoints connect at once, and wait for offers. first numbers their addresses.
func (r *waitingProcess) wait(ctx context.Context, b *testing.B, first, n int, failures *warnings) {
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
func (r *waitingProcess) close() {
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

// waitingProcess is a server in a process of its own.
type waitingProcess struct {
	address   string // what it has printed
	relay     Relay
	in        func(string)
	out       *bufio.Reader
	stop      func()
	endpoints []*Endpoint
}

// startWaiting starts this program again as a server.
func startWaiting(b *testing.B, serves string) *waitingProcess {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestWaitingProcess$")
	cmd.Env = append(os.Environ(), waitingServer+"="+serves)
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
	r := &waitingProcess{
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
	r.address = strings.TrimSpace(line)
	if serves != waitsAtRelay {
		return r
	}
	if r.relay, err = ParseRelay(r.address); err != nil {
		b.Fatal(err)
	}
	return r
}

// endpoint makes an endpoint with an address of its own.
func (r *waitingProcess) endpoint(b *testing.B, i int, failures *warnings) *Endpoint {
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
func (r *waitingProcess) memory(b *testing.B) serverMemory {
	b.Helper()
	r.in("memory")
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var m serverMemory
	if err := json.Unmarshal(line, &m); err != nil {
		b.Fatal(err)
	}
	return m
}

// TestWaitingProcess is the process of startWaiting. It serves until its input ends,
// and answers each line with its memory.
func TestWaitingProcess(t *testing.T) {
	lost := func() uint64 { return 0 }
	switch os.Getenv(waitingServer) {
	case "":
		t.Skip("only a process of a benchmark runs it")
	case waitsAtRelay:
		lost = serveRelay(t)
	case waitsAtHTTP:
		serveHTTP(t)
	case waitsAtQUIC:
		serveQUIC(t)
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		out.Encode(ownMemory(lost()))
	}
}

// serveRelay serves as a relay, and prints its address. The function that it returns counts the packets
// that were lost.
func serveRelay(t *testing.T) (lost func() uint64) {
	server, err := relay.Listen(context.Background(), "udp4", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	go server.Run(context.Background())
	t.Cleanup(func() { server.Close() })
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin})
	return func() uint64 {
		stats := server.Stats()
		return stats.Dropped[relay.DropControlQueue] + stats.ReceiveOverflow
	}
}

// ownMemory returns the memory of this process after a garbage collection.
func ownMemory(lost uint64) serverMemory {
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
	return serverMemory{RSS: rss << 10, Heap: m.HeapAlloc, Stacks: m.StackInuse, Goroutines: uint64(runtime.NumGoroutine()), Lost: lost}
}
