package sni

import (
	"bufio"
	"bytes"
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

	"golang.org/x/sys/unix"
)

// benchRelay is a relay in a process of its own, which may have children.
type benchRelay struct {
	address string
	pid     int
}

// benchRelays are the relays that are compared: this one, a loop of io.Copy that knows only
// one upstream, and programs, if they are installed.
var benchRelays = []struct {
	name  string
	start func(b *testing.B, upstream string) benchRelay
}{
	{"relay", startRelay},
	{"copy", startCopy},
	{"nginx", startNginx},
	{"haproxy", startHAProxy},
}

// relayKind and relayUpstream are set in the processes of startRelay and startCopy.
const (
	relayKind     = "QUICWAY_TEST_SNI_RELAY"
	relayUpstream = "QUICWAY_TEST_SNI_UPSTREAM"
)

func startRelay(b *testing.B, upstream string) benchRelay { return startOwn(b, "relay", upstream) }

func startCopy(b *testing.B, upstream string) benchRelay { return startOwn(b, "copy", upstream) }

// startOwn starts this program again as a relay.
func startOwn(b *testing.B, kind, upstream string) benchRelay {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRelayProcess$")
	cmd.Env = append(os.Environ(), relayKind+"="+kind, relayUpstream+"="+upstream)
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
	b.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // it ends with its input
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return benchRelay{strings.TrimSpace(address), cmd.Process.Pid}
}

// TestRelayProcess is the process of startOwn. It relays until its input ends.
func TestRelayProcess(t *testing.T) {
	upstream := os.Getenv(relayUpstream)
	switch os.Getenv(relayKind) {
	case "relay":
		s := newServer(t, &Config{
			MaxConnectionsPerSource: 1 << 20, MaxWaitingPerSource: 1 << 20, MaxWaiting: 1 << 20,
			Routes: []*Route{{Names: []string{benchName}, Upstreams: []string{upstream}}},
		})
		runtime.GC()
		fmt.Println(s.Addr())
	case "copy":
		fmt.Println(copyAll(t, upstream))
	default:
		t.Skip("only a process of a benchmark runs it")
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until it ends
}

// copyAll starts a relay that copies all connections, and returns its address.
func copyAll(t *testing.T, upstream string) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go copyBoth(client.(*net.TCPConn), upstream)
		}
	}()
	return l.Addr()
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

func startNginx(b *testing.B, upstream string) benchRelay {
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

func startHAProxy(b *testing.B, upstream string) benchRelay {
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

// startProgram starts another program. It skips the benchmark if the program is not
// installed.
func startProgram(b *testing.B, name string, config func(dir, listen string) string, flag string) benchRelay {
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
			return benchRelay{listen, cmd.Process.Pid}
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not listen: %v\n%s", name, err, &out)
		}
	}
}

// cpuTimes are the CPU times of a relay's processes, and of this one, in which the client
// and the upstream are.
type cpuTimes struct{ relay, ends time.Duration }

// startTimer begins to measure.
func (r benchRelay) startTimer(b *testing.B) cpuTimes {
	times := r.cpuTimes(b)
	b.ResetTimer()
	return times
}

// report reports the CPU times since startTimer, multiplied by a factor, for each of b.N.
func (r benchRelay) report(b *testing.B, since cpuTimes, factor float64, unit string) {
	now := r.cpuTimes(b)
	relay, ends := now.relay-since.relay, now.ends-since.ends
	factor /= float64(b.N)
	b.ReportMetric(relay.Seconds()*factor, "relay-cpu-"+unit)
	b.ReportMetric((relay+ends).Seconds()*factor, "cpu-"+unit)
}

func (r benchRelay) cpuTimes(b *testing.B) (t cpuTimes) {
	b.Helper()
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		b.Fatal(err)
	}
	t.ends = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // the process has ended
		}
		// proc(5): "pid (comm) state ppid ... utime stime ...", in ticks of 10 ms.
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if pid := strconv.Itoa(r.pid); fields[1] != pid && name != "/proc/"+pid+"/stat" {
			continue
		}
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			t.relay += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return t
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
