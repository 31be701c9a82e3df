package sni

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// benchName is the server name of all connections in benchmarks.
const benchName = "a.test"

// benchRelays are the relays that are compared: this one, a loop of io.Copy that knows only
// one upstream, and programs, if they are installed.
var benchRelays = []struct {
	name  string
	start func(b *testing.B, upstream string) (address string)
}{
	{"relay", startRelay},
	{"copy", startCopy},
	{"nginx", startNginx},
	{"haproxy", startHAProxy},
}

func startRelay(b *testing.B, upstream string) string {
	s, err := Listen(b.Context(), "tcp", "127.0.0.1:0", &Config{
		MaxConnectionsPerSource: 1 << 20, MaxWaitingPerSource: 1 << 20, MaxWaiting: 1 << 20,
		Routes: []*Route{{Names: []string{benchName}, Upstreams: []string{upstream}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(b.Context()) }()
	b.Cleanup(func() {
		s.Close()
		<-ran
	})
	return s.Addr().String()
}

func startCopy(b *testing.B, upstream string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go copyBoth(client.(*net.TCPConn), upstream)
		}
	}()
	return l.Addr().String()
}

// copyBoth relays a connection with io.Copy alone.
func copyBoth(client *net.TCPConn, upstream string) {
	defer client.Close()
	c, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	defer c.Close()
	server := c.(*net.TCPConn)
	var other sync.WaitGroup
	other.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.CloseWrite()
	})
	_, _ = io.Copy(server, client)
	_ = server.CloseWrite()
	other.Wait()
}

func startNginx(b *testing.B, upstream string) string {
	return startProgram(b, "nginx", func(dir, listen string) string {
		return fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/log;
events { worker_connections 20000; }
stream {
  map $ssl_preread_server_name $up { %[2]s %[3]s; }
  server { listen %[4]s backlog=4096; ssl_preread on; proxy_pass $up; }
}`, dir, benchName, upstream, listen)
	}, "-c")
}

func startHAProxy(b *testing.B, upstream string) string {
	return startProgram(b, "haproxy", func(dir, listen string) string {
		return fmt.Sprintf(`global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
frontend f
  bind %s
  tcp-request inspect-delay 5s
  tcp-request content accept if { req_ssl_hello_type 1 }
  use_backend u if { req_ssl_sni -i %s }
backend u
  server s %s
`, listen, benchName, upstream)
	}, "-f")
}

// startProgram starts a relay that is a program of its own, and returns its address. It
// skips the benchmark if the program is not installed.
func startProgram(b *testing.B, name string, config func(dir, listen string) string, flag string) string {
	program, err := exec.LookPath(name)
	if err != nil {
		b.Skipf("%s is not installed: %v", name, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close() // the program opens it again
	dir := b.TempDir()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config(dir, listen)), 0o600); err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(program, flag, file)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			c.Close()
			return listen
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not listen: %v\n%s", name, err, &out)
		}
	}
}

// sink is an upstream. What a connection sends first says what it wants: see benchConn.
func sink(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	hello := len(helloOf(b, benchName))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSink(c.(*net.TCPConn), hello)
		}
	}()
	return l.Addr().String()
}

var sinkBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// serveSink reads a ClientHello and answers with 1 kB, and discards the rest.
func serveSink(c *net.TCPConn, hello int) {
	defer c.Close()
	if _, err := io.CopyN(io.Discard, c, int64(hello)); err != nil {
		return
	}
	if _, err := c.Write(make([]byte, 1024)); err != nil {
		return
	}
	buf := sinkBuffers.Get().(*[256 << 10]byte)
	defer sinkBuffers.Put(buf)
	for {
		if _, err := c.Read(buf[:]); err != nil {
			return
		}
	}
}

// benchConn opens a connection through a relay to a sink, and waits for its answer.
func benchConn(address string, hello []byte) (*net.TCPConn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(hello); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := io.ReadFull(c, make([]byte, 1024)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// machineTime returns the CPU time that the machine has spent, without that of waiting.
func machineTime(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	ticks := 0
	for i, field := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 6 { // idle, iowait; steal, and guests, which are in user
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// BenchmarkBulk measures how fast bytes go through a relay, in 1 or 16 streams, and the CPU
// time of the whole machine.
func BenchmarkBulk(b *testing.B) {
	const block = 1 << 20
	for _, streams := range []int{1, 16} {
		for _, r := range benchRelays {
			b.Run(fmt.Sprintf("streams=%d/%s", streams, r.name), func(b *testing.B) {
				address, hello := r.start(b, sink(b)), helloOf(b, benchName)
				var conns []*net.TCPConn
				for range streams {
					c, err := benchConn(address, hello)
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					conns = append(conns, c)
				}
				b.SetBytes(block)
				busy := machineTime(b)
				b.ResetTimer()
				var all sync.WaitGroup
				for i, c := range conns {
					all.Go(func() {
						data := make([]byte, block)
						for n := i; n < b.N; n += streams {
							if _, err := c.Write(data); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)*block/1e6/b.Elapsed().Seconds(), "MB/s-relayed")
				b.ReportMetric((machineTime(b)-busy).Seconds()*1e12/float64(b.N)/block, "cpu-ms/GB")
			})
		}
	}
}

// BenchmarkShort measures connections with 1 kB each, eight at the same time.
func BenchmarkShort(b *testing.B) {
	for _, r := range benchRelays {
		b.Run(r.name, func(b *testing.B) {
			address, hello := r.start(b, sink(b)), helloOf(b, benchName)
			busy := machineTime(b)
			b.ResetTimer()
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					for n := i; n < b.N; n += 8 {
						c, err := benchConn(address, hello)
						if err != nil {
							b.Error(err)
							return
						}
						reset(c) // so that no port is in TIME_WAIT
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
			b.ReportMetric((machineTime(b)-busy).Seconds()*1e6/float64(b.N), "cpu-us/conn")
		})
	}
}

// BenchmarkMemory measures the memory of the process that a connection takes which waits.
// The client and the upstream are in another process: this one, started again.
func BenchmarkMemory(b *testing.B) {
	const conns = 4000
	upstream, hello := sink(b), helloOf(b, benchName)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRelayProcess$")
	cmd.Env = append(os.Environ(), relayProcess+"="+upstream)
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
	defer func() {
		stdin.Close()
		_ = cmd.Wait() // it ends with its input
	}()
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	address = strings.TrimSpace(address)
	before := rss(b, cmd.Process.Pid)
	b.ResetTimer()
	for range b.N {
		var open []*net.TCPConn
		for range conns {
			c, err := benchConn(address, hello)
			if err != nil {
				b.Fatal(err)
			}
			open = append(open, c)
		}
		b.ReportMetric(float64(rss(b, cmd.Process.Pid)-before)/conns, "B/conn")
		for _, c := range open {
			reset(c)
		}
	}
}

// rss returns the resident memory of a process in bytes.
func rss(b *testing.B, pid int) int {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// relayProcess is set in the process of BenchmarkMemory to the upstream.
const relayProcess = "QUICWAY_TEST_SNI_UPSTREAM"

// TestRelayProcess is the process of BenchmarkMemory. It relays until its input ends.
func TestRelayProcess(t *testing.T) {
	upstream := os.Getenv(relayProcess)
	if upstream == "" {
		t.Skip("only a process of BenchmarkMemory runs it")
	}
	s := newServer(t, &Config{
		MaxConnectionsPerSource: 1 << 20, Routes: []*Route{{Names: []string{benchName}, Upstreams: []string{upstream}}},
	})
	runtime.GC()
	fmt.Println(s.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until it ends
}
