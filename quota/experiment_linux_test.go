package quota

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/xdp"
)

// The experiment of the eQUIC paper (Pantuza et al.): an attacker asks for more
// connections than its quota of five, again and again, while good clients make requests.
// The benchmark measures what different defences cost. The attacker either dials, as in the
// paper, or sends first Initials with invalid content. These cost the attacker less, and
// never complete a handshake, where the baseline of the paper begins to count.

const (
	experimentEnv  = "QUICWAY_TEST_EXPERIMENT"
	experimentAddr = "10.1.0.2:443"
	// attackRate is the number of first Initials per second.
	attackRate = 20000
	// dialers is the number of goroutines that dial.
	dialers = 64
	// measured is the duration of a measurement.
	measured = 2 * time.Second
)

// experiments are the defences, and attacks what the attacker does.
var (
	experiments = []string{"none", "after-handshake", "refuse", "drop", "generic", "native", "nftables", "equic"}
	attacks     = map[string]func(*town) (stop func()){"dials": (*town).dialOn, "initials": (*town).floodInitials}
)

// BenchmarkExperiment measures each defence against each attack: requests of good clients
// per second, how long they take (each on a connection of its own), how many are served, the
// CPU time and the system calls of the server, and how many connections that the attacker
// had before stay alive.
func BenchmarkExperiment(b *testing.B) {
	for attack, start := range attacks {
		for _, mode := range experiments {
			b.Run(attack+"/"+mode, func(b *testing.B) {
				for range b.N {
					experiment(b, mode, start)
				}
			})
		}
	}
}

func (w *town) floodInitials() (stop func()) {
	bad := netip.MustParseAddr(w.badIP)
	return w.flood(time.Second/attackRate, func(i int) (netip.AddrPort, []byte) {
		return netip.AddrPortFrom(bad, uint16(1024+i%60000)), garbage()
	})
}

// dialOn dials again and again, and closes each connection at once.
func (w *town) dialOn() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for range dialers {
		g := w.guest(w.bad, w.badIP)
		running.Go(func() {
			defer g.close()
			for ctx.Err() == nil {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				if conn, err := g.dial(ctx); err == nil {
					conn.CloseWithError(0, "")
				}
				cancel()
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.Cleanup(stop)
	return stop
}

// TestExperimentServer is the main function of the server's process.
func TestExperimentServer(t *testing.T) {
	if mode, ok := os.LookupEnv(experimentEnv); ok {
		serveExperiment(t, mode)
	}
}

func serveExperiment(t *testing.T, mode string) {
	conf := &Config{Excess: Drop, Source: Limits{Connections: 5, HalfOpen: 1 << 20, ConnectionRate: -1, AttemptRate: -1}, RetrySource: -1}
	switch mode {
	case "none", "nftables", "after-handshake", "equic":
		conf.Source.Connections = -1
		conf.Source.HalfOpen = -1
		conf.Total = Limits{Connections: -1, HalfOpen: -1}
	case "refuse":
		conf.Excess = Refuse
	case "generic", "native":
		var xdpMode xdp.Mode
		if err := xdpMode.UnmarshalText([]byte(mode)); err != nil {
			t.Fatal(err)
		}
		program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if _, err := program.Attach("eth0", xdpMode); err != nil {
			t.Fatal(err)
		}
		conf.XDP = program
	}
	c := mustNew(t, conf)
	defer c.Close()
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(experimentAddr))
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	accepting, err := listenExperiment(t, c, &quic.Transport{Conn: conn}, mode)
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 4096)) })}
	fmt.Println("serving")
	t.Fatal(server.ServeListener(accepting))
}

// listenExperiment listens under the quota, or under none if it has no limit.
func listenExperiment(t *testing.T, c *Controller, tr *quic.Transport, mode string) (quicListener, error) {
	conf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	if c.conf.Source.Connections > 0 {
		limited, err := c.Transport(tr)
		if err != nil {
			return nil, err
		}
		return limited.ListenEarly(conf, nil)
	}
	ln, err := tr.ListenEarly(conf, nil)
	if mode == "after-handshake" {
		return &lateListener{ln, make(map[netip.Addr]int)}, err
	}
	return ln, err
}

// lateListener closes connections beyond the quota when their handshake is complete, like
// the baseline of the eQUIC paper.
type lateListener struct {
	quicListener
	live map[netip.Addr]int
}

func (l *lateListener) Accept(ctx context.Context) (*quic.Conn, error) {
	for {
		conn, err := l.quicListener.Accept(ctx)
		if err != nil {
			return nil, err
		}
		addr := udp.AddrPort(conn.RemoteAddr()).Addr()
		if l.live[addr] < 5 || addr.String() != townFamilies[0].bad {
			l.live[addr]++
			return conn, nil
		}
		conn.CloseWithError(excessiveLoad, "over quota")
	}
}

// experiment makes one measurement, and reports it.
func experiment(b *testing.B, mode string, attack func(*town) (stop func())) {
	b.StopTimer()
	w := newHosts(b)
	w.addr = netip.MustParseAddrPort(experimentAddr)
	f := townFamilies[0]
	w.goodIP, w.badIP = f.good, f.bad
	if mode == "nftables" {
		countWithNftables(b, w)
	}
	server := startExperiment(b, w, mode)
	held, _ := w.holdFrom(w.bad, w.badIP, 5) // all that the attacker may have
	if mode == "equic" {
		if err := attachEQUIC(w).Put(netip.MustParseAddr(w.badIP).As4(), uint32(5)); err != nil {
			b.Fatal(err)
		}
	}
	stop := attack(w)
	count := countSyscalls(b, server.Process.Pid)
	cpu, irq, calls := cpuOf(b, server.Process.Pid), softirq(b), count()
	start := time.Now()
	b.StartTimer()
	var took []time.Duration
	failed := 0
	for time.Since(start) < measured {
		began := time.Now()
		if err := w.visitFrom(w.good, w.goodIP, 2*time.Second); err != nil {
			failed++
			continue
		}
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	seconds := time.Since(start).Seconds()
	used, interrupted, called := cpuOf(b, server.Process.Pid)-cpu, softirq(b)-irq, count()-calls
	stop()
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/seconds, "requests/s")
	for _, p := range []int{50, 95, 99} {
		if len(took) > 0 {
			b.ReportMetric(float64(took[len(took)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
		}
	}
	b.ReportMetric(100*float64(len(took))/float64(len(took)+failed), "served-%")
	b.ReportMetric(100*used/seconds, "server-cpu-%")
	b.ReportMetric(100*interrupted/seconds, "softirq-cpu-%")
	if len(took) > 0 {
		b.ReportMetric(1000*used/float64(len(took)), "cpu-ms/request")
	}
	if calls >= 0 {
		b.ReportMetric(called/seconds, "syscalls/s")
		if len(took) > 0 {
			b.ReportMetric(called/float64(len(took)), "syscalls/request")
		}
	}
	b.ReportMetric(20*float64(living(held)), "held-%")
}

// living returns the number of connections on which a request is answered.
func living(conns []*quic.Conn) (n int) {
	answers := make(chan bool, len(conns))
	for _, conn := range conns {
		go func() { answers <- lives(conn) }()
	}
	for range conns {
		if <-answers {
			n++
		}
	}
	return n
}

func startExperiment(b *testing.B, w *town, mode string) *exec.Cmd {
	server := exec.Command(os.Args[0], "-test.run", "^TestExperimentServer$", "-test.v")
	server.Env = append(os.Environ(), experimentEnv+"="+mode)
	w.server.Do(func() error {
		out, err := server.StdoutPipe()
		if err != nil {
			return err
		}
		if err := server.Start(); err != nil {
			return err
		}
		var said []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said = append(said, lines.Text())
			if strings.Contains(lines.Text(), "serving") {
				return nil
			}
		}
		return errors.New(strings.Join(said, "\n"))
	})
	b.Cleanup(func() { server.Process.Kill(); server.Wait() })
	return server
}

// countWithNftables makes nftables count the attacker's UDP flows, and drop the first packet
// of those beyond five, as "ct count over 5 drop" does.
func countWithNftables(b *testing.B, w *town) {
	b.Helper()
	load := func(register uint32, base expr.PayloadBase, at, length uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: at, Len: length}
	}
	bad := netip.MustParseAddr(w.badIP).As4()
	err := w.server.Run(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "quota"})
		chain := conn.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			load(1, expr.PayloadBaseNetworkHeader, 12, 4),
			&expr.Cmp{Register: 1, Data: bad[:]},
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Connlimit{Count: 5, Flags: 1}, // over
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return conn.Flush()
	})
	if err != nil {
		b.Skipf("nftables cannot count flows on this machine: %v", err)
	}
}

// cpuOf returns the CPU time of a process, in seconds.
func cpuOf(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ
}

// softirq returns the time that all CPUs have spent in soft interrupts, in seconds.
func softirq(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	n, _ := strconv.ParseFloat(strings.Fields(string(text))[7], 64)
	return n / 100
}

// countSyscalls counts the system calls of a process. count returns -1 if that is not
// possible.
func countSyscalls(b *testing.B, pid int) (count func() float64) {
	none := func() float64 { return -1 }
	calls, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return none
	}
	b.Cleanup(func() { calls.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(pid), "out"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, calls.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		b.Logf("system calls are not counted: %v", err)
		return none
	}
	b.Cleanup(func() { prog.Close() })
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: prog})
	if err != nil {
		b.Logf("system calls are not counted: %v", err)
		return none
	}
	b.Cleanup(func() { l.Close() })
	return func() float64 {
		var n uint64
		if err := calls.Lookup(uint32(0), &n); err != nil {
			return -1
		}
		return float64(n)
	}
}
