package sni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// spliceWays are the ways from a client to a server on another host that are compared. Each
// starts what it needs, and returns the address that the client connects to.
var spliceWays = []struct {
	name  string
	start func(b *benchBed) (address string)
}{
	{"routed", (*benchBed).route},
	{"spliced", func(b *benchBed) string { return b.own(splicing()) }},
	{"userspace", func(b *benchBed) string { return b.own(&spliceSetup{}) }},
	{"nginx", func(b *benchBed) string { return b.program("nginx", nginxForBed, "-c") }},
	{"haproxy", func(b *benchBed) string { return b.program("haproxy", haproxyForBed, "-f") }},
}

// benchBed is a bed in a benchmark.
type benchBed struct {
	*testing.B
	bedHosts
	sink    string
	process *relayProcessOf // that splices; or nil
	pid     int             // of the relay; 0: there is none
	hello   []byte
	copying bool // the ends copy what they send and receive
}

// cpuTime returns the CPU time of the client and the server, which are this process, of the
// relay with its children, and of the kernel's threads for what interrupts leave over. What a
// process does in interrupts counts for it, so that this is all the work for the packets. Other
// processes do not disturb it much.
func (b *benchBed) cpuTime() (sum time.Duration) {
	b.Helper()
	pids := []string{"self"}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// The number, the name in brackets, the state, and the parent.
		command, rest, _ := strings.Cut(string(stat[bytes.IndexByte(stat, '(')+1:]), ") ")
		pid, parent := filepath.Base(filepath.Dir(name)), strings.Fields(rest)[1]
		if own := strconv.Itoa(b.pid); strings.HasPrefix(command, "ksoftirqd/") || b.pid != 0 && (pid == own || parent == own) {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		sum += b.taskTime(pid)
	}
	if sum == 0 {
		b.Fatal("this kernel does not say how long threads have run")
	}
	return sum
}

// taskTime returns the CPU time of the threads of a process, those that have ended left out.
func (b *benchBed) taskTime(pid string) (sum time.Duration) {
	threads, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		ran, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// newBenchBed connects the hosts and starts a sink on the server. All hosts use CUBIC, since
// others hide losses.
func newBenchBed(b *testing.B, copying bool, connect func(h *bedHosts)) *benchBed {
	bed := &benchBed{B: b, bedHosts: newHosts(b), hello: helloOf(b, benchName), copying: copying}
	connect(&bed.bedHosts)
	bed.client.Route("10.77.2.0/24", "10.77.1.1")
	bed.server.Route("10.77.1.0/24", "10.77.2.1")
	bed.relay.Sysctl("net/ipv4/ip_forward", "1")
	for _, h := range []*nettest.Host{bed.client, bed.relay, bed.server} {
		h.Congestion("cubic")
	}
	var l net.Listener
	bed.server.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(bedAddr(false, 2, 2), 0).String())
		return err
	})
	b.Cleanup(func() { l.Close() })
	bed.sink = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			discard := discardCopies
			if !copying {
				discard = discardInKernel
			}
			go serveSink(c.(*net.TCPConn), len(bed.hello), discard)
		}
	}()
	return bed
}

// cables connects the hosts by links with the offloads of network cards.
func cables(h *bedHosts) {
	nettest.Cable(h.client, "c0", bedAddrs(1, 2), h.relay, "c1", bedAddrs(1, 1))
	nettest.Cable(h.relay, "s1", bedAddrs(2, 1), h.server, "s0", bedAddrs(2, 2))
	h.client.SendOffloads("c0")
	h.relay.SendOffloads("c1")
	h.relay.SendOffloads("s1")
	h.server.SendOffloads("s0")
}

// route returns the server's own address: the relay's host only forwards.
func (b *benchBed) route() string { return b.sink }

// own starts a relay of this package, and returns its address.
func (b *benchBed) own(s *spliceSetup) string {
	s.Listen, s.Upstream = netip.AddrPortFrom(bedAddr(false, 1, 1), 0).String(), b.sink
	b.process = startSplicing(b.B, b.relay, s)
	b.pid = b.process.cmd.Process.Pid
	return b.process.address
}

// bedRelayAddress is where programs listen.
const bedRelayAddress = "10.77.1.1:4433"

func nginxForBed(dir, upstream string) string {
	return fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/log;
events { worker_connections 20000; }
stream {
  map $ssl_preread_server_name $up { %[2]s %[3]s; }
  server { listen %[4]s backlog=4096; ssl_preread on; proxy_pass $up; }
}`, dir, benchName, upstream, bedRelayAddress)
}

func haproxyForBed(_, upstream string) string {
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
`, bedRelayAddress, benchName, upstream)
}

// program starts a relay that is a program, and returns its address. It skips the benchmark
// if the program is not installed.
func (b *benchBed) program(name string, config func(dir, upstream string) string, flag string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		b.Skipf("%s is not installed: %v", name, err)
	}
	dir := b.TempDir()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config(dir, b.sink)), 0o600); err != nil {
		b.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, flag, file)
	cmd.Stdout, cmd.Stderr = &out, &out
	b.relay.Do(cmd.Start)
	b.pid = cmd.Process.Pid
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := b.client.Run(func() error {
			c, err := net.Dial("tcp", bedRelayAddress)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			return bedRelayAddress
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not listen: %v\n%s", name, err, &out)
		}
	}
}

// open opens connections to an address, and waits until those that are to be spliced are.
func (b *benchBed) open(address string, streams int) (conns []*net.TCPConn) {
	for range streams {
		b.client.Do(func() error {
			c, err := benchConn(address, b.hello)
			if err == nil {
				conns = append(conns, c)
				b.Cleanup(func() { c.Close() })
			}
			return err
		})
	}
	if b.process == nil || !b.process.always {
		return conns
	}
	for _, c := range conns {
		if _, err := c.Write(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
	}
	b.process.waitFor("the takeovers", func(s *SpliceStats) bool { return s.InKernel == streams })
	return conns
}

const benchBlock = 1 << 20

// send sends blocks in all connections.
func (b *benchBed) send(conns []*net.TCPConn, blocks int) error {
	b.Helper()
	name := filepath.Join(b.TempDir(), "block")
	if err := os.WriteFile(name, make([]byte, benchBlock), 0o600); err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	errs := make([]error, len(conns))
	for i, c := range conns {
		all.Go(func() {
			send, end, err := b.sender(c, name)
			if err != nil {
				errs[i] = err
				return
			}
			for n := i; n < blocks && err == nil; n += len(conns) {
				err = send()
			}
			errs[i] = errors.Join(err, end())
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// sender returns a function that sends the block in a file: a copy of it, or its pages.
func (b *benchBed) sender(c *net.TCPConn, name string) (send, end func() error, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	send = func() error {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(c, file, benchBlock) // by sendfile(2)
		return err
	}
	if b.copying {
		data, err := io.ReadAll(file)
		if err != nil {
			return nil, nil, errors.Join(err, file.Close())
		}
		send = func() error { _, err := c.Write(data); return err }
	}
	return send, file.Close, nil
}

// discardInKernel has the kernel discard what arrives, until the connection ends.
func discardInKernel(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	never := make([]byte, benchBlock) // nothing is written to it
	var n int
	for {
		if waitErr := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), never, unix.MSG_TRUNC)
			return !errors.Is(err, unix.EAGAIN)
		}); waitErr != nil {
			return waitErr
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// BenchmarkSpliced measures how fast bytes go from one host to another through a third one,
// in 1 or 16 streams, and the CPU time of all that takes part. Most of the CPU time of ends
// that copy is that of the copies. The relay's part shows with ends that do not: the client
// sends the pages of a file, and the server has the kernel discard what has arrived. So the
// ends and the splice(2) of a relay hand on pages of 4 kB, as those that network cards fill.
func BenchmarkSpliced(b *testing.B) {
	for _, copying := range []bool{false, true} {
		for _, streams := range []int{1, 16} {
			for _, way := range spliceWays {
				b.Run(fmt.Sprintf("copying=%v/streams=%d/%s", copying, streams, way.name), func(b *testing.B) {
					bed := newBenchBed(b, copying, cables)
					bed.measure(bed.open(way.start(bed), streams))
				})
			}
		}
	}
}

// measure sends in all connections.
func (b *benchBed) measure(conns []*net.TCPConn) {
	b.Helper()
	b.SetBytes(benchBlock)
	busy := b.cpuTime()
	b.ResetTimer()
	err := b.send(conns, b.N)
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)*benchBlock/1e6/b.Elapsed().Seconds(), "MB/s-relayed")
	b.ReportMetric((b.cpuTime()-busy).Seconds()*1e12/float64(b.N)/benchBlock, "cpu-ms/GB")
}

// BenchmarkSplicedLoss measures the same in one stream over two links with delay and loss. Here
// the default policy decides.
func BenchmarkSplicedLoss(b *testing.B) {
	ways := append(spliceWays[:0:0], spliceWays[:3]...)
	ways[1].start = func(b *benchBed) string {
		setup := splicing()
		setup.Late, setup.Policy = true, "default"
		return b.own(setup)
	}
	for _, loss := range []float64{0.001, 0.01} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("loss=%v/%s", loss, way.name), func(b *testing.B) {
				bed := newBenchBed(b, true, func(h *bedHosts) {
					lines(h, nettest.LineConditions{Loss: loss, Delay: 5 * time.Millisecond})
				})
				conns := bed.open(way.start(bed), 1)
				b.SetBytes(benchBlock)
				b.ResetTimer()
				if err := bed.send(conns, b.N); err != nil {
					b.Fatal(err)
				}
				if err := conns[0].CloseWrite(); err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, conns[0]); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric(float64(b.N)*benchBlock/1e6/b.Elapsed().Seconds(), "MB/s-relayed")
				if bed.process != nil {
					st := bed.process.splice()
					b.ReportMetric(float64(st.Takeovers), "takeovers")
				}
			})
		}
	}
}
