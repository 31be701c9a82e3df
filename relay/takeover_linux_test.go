package relay_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// childConfig is the configuration of a relay in a process of its own.
type childConfig struct {
	Addr   string
	Ifaces []string
	Mode   xdp.Mode
	Pin    string
	TTL    time.Duration
}

// childReport is what that relay reports repeatedly.
type childReport struct {
	Token, Pin string
	Stats      relay.Stats
}

const childVariable = "QUICWAY_TEST_RELAY"

// TestChildRelay runs that relay if another test has started the process. It checks
// nothing.
func TestChildRelay(t *testing.T) {
	conf := os.Getenv(childVariable)
	if conf == "" {
		t.Skip("runs only in a process that another test has started")
	}
	var c childConfig
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		t.Fatal(err)
	}
	program, err := xdp.Load(&xdp.Config{Sessions: 64, Pin: c.Pin})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	conn, err := net.ListenPacket("udp", c.Addr)
	if err != nil {
		t.Fatal(err)
	}
	server, err := relay.New(&relay.Config{XDP: program, TTL: c.TTL, Secret: []byte(strings.Repeat("s", 32))}, conn)
	if err != nil {
		t.Fatal(err)
	}
	// First start the server, which takes over the sessions, then attach.
	for _, iface := range c.Ifaces {
		if _, err := program.Attach(iface, c.Mode); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for encoder := json.NewEncoder(os.Stdout); ; time.Sleep(10 * time.Millisecond) {
			if err := encoder.Encode(childReport{server.Token(), server.Pin(), server.Stats()}); err != nil {
				return
			}
		}
	}()
	if err := server.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// child is a relay process that can be killed.
type child struct {
	*testing.T
	cmd  *exec.Cmd
	last atomic.Pointer[childReport]
	gone chan struct{}
}

func (n *internet) startChild(c childConfig) *child {
	n.Helper()
	if c.Mode == xdp.Native {
		n.letPass()
	}
	conf, err := json.Marshal(c)
	if err != nil {
		n.Fatal(err)
	}
	k := &child{T: n.T, cmd: exec.Command(os.Args[0], "-test.run", "^TestChildRelay$"), gone: make(chan struct{})}
	k.cmd.Env = append(os.Environ(), childVariable+"="+string(conf))
	k.cmd.Stderr = os.Stderr
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		n.Fatal(err)
	}
	n.relay.Do(k.cmd.Start)
	go k.read(out)
	n.Cleanup(k.kill)
	k.until("tells nothing", func(*childReport) bool { return true })
	return k
}

func (k *child) read(out io.Reader) {
	defer close(k.gone)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r childReport
		if err := json.Unmarshal(lines.Bytes(), &r); err == nil {
			k.last.Store(&r)
		}
	}
}

// kill kills the process without a chance to clean up.
func (k *child) kill() {
	_ = k.cmd.Process.Signal(syscall.SIGKILL)
	<-k.gone
	_ = k.cmd.Wait()
}

// until waits until the child reports what is asked for.
func (k *child) until(otherwise string, ok func(*childReport) bool) {
	k.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if r := k.last.Load(); r != nil && ok(r) {
			return
		}
		select {
		case <-k.gone:
			k.Fatal("the relay has ended")
		default:
		}
		if time.Now().After(deadline) {
			k.Fatalf("the relay %s: %+v", otherwise, k.last.Load())
		}
	}
}

// attached says whether one of the relay's interfaces has a program.
func (n *internet) attached() (found bool) {
	n.Helper()
	for _, iface := range n.ifaces {
		n.relay.Do(func() error {
			l, err := netlink.LinkByName(iface)
			found = found || err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.ProgId != 0
			return err
		})
	}
	return found
}

// connectVia is connect with the relay of another process.
func (n *internet) connectVia(f family, k *child) (a, b *p2p.Conn) {
	n.Helper()
	r := k.last.Load()
	return n.meet(f, n.alice.Listen(f.alice), r.Token, r.Pin)
}

// TestKilledRelayLeavesNothing checks that the kernel detaches the program when the process
// is killed.
func TestKilledRelayLeavesNothing(t *testing.T) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			f := kernelFamilies[0]
			n := newHosts(t, (*internet).oneNIC)
			k := n.startChild(childConfig{Addr: f.relay, Ifaces: n.ifaces, Mode: mode})
			a, b := n.connectVia(f, k)
			n.transfer(a, b, 8<<20)
			k.until("has not seen the kernel forward", func(r *childReport) bool { return r.Stats.OffloadedPackets > 1000 })
			if !n.attached() {
				t.Fatal("nothing is attached")
			}
			k.kill()
			for deadline := time.Now().Add(10 * time.Second); n.attached(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("a program is left")
				}
			}
		})
	}
}

// TestTakeover checks that packets go on to flow when a relay is killed and another one
// takes its pinned program over, and that the peers connect to it again.
func TestTakeover(t *testing.T) {
	for i, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		f := kernelFamilies[i]
		t.Run(fmt.Sprintf("%s/%v", f.name, mode), func(t *testing.T) { testTakeover(t, f, mode) })
	}
}

func testTakeover(t *testing.T, f family, mode xdp.Mode) {
	n := newHosts(t, (*internet).twoNICs)
	conf := childConfig{Addr: f.relay, Ifaces: n.ifaces, Mode: mode, Pin: filepath.Join(nettest.BPFFS(t), "quicway"), TTL: 5 * time.Second}
	k := n.startChild(conf)
	a, b := n.connectVia(f, k)
	n.transfer(a, b, 1<<20)
	relayed := pinnedCounter(t, conf.Pin)
	done := make(chan struct{})
	flowing := make(chan error, 1)
	go func() { flowing <- flow(a, b, done) }()
	n.moves("before the server is killed the kernel forwards", relayed)

	k.kill()
	n.moves("without a server the kernel forwards", relayed)
	k = n.startChild(conf)
	n.moves("with another server the kernel forwards", relayed)
	k.until("does not get its peers back", func(r *childReport) bool { return r.Stats.Legs == 2 })
	k.until("forgets what it has not taken over", func(r *childReport) bool { return r.Stats.OffloadedPackets > 1000 })
	time.Sleep(conf.TTL + 2*time.Second) // until it has forgotten that
	n.moves("after the takeover the kernel forwards", relayed)
	s := k.last.Load().Stats
	if s.Drops() != 0 {
		t.Errorf("dropped %v, want nothing", s.Dropped)
	}
	if s.Sessions != 1 || s.Legs != 2 || s.OffloadErrors != 0 {
		t.Errorf("%d sessions, %d legs, %d errors of the offload, want 1, 2 and none", s.Sessions, s.Legs, s.OffloadErrors)
	}

	close(done)
	if err := <-flowing; err != nil {
		t.Error(err)
	}
	k.kill()
	leftInPinned(t, conf.Pin)
	if err := xdp.Unpin(conf.Pin); err != nil {
		t.Fatal(err)
	}
	if n.attached() {
		t.Error("a program is left")
	}
}

// pinnedCounter returns a function that reads how many packets a pinned program has
// forwarded.
func pinnedCounter(t *testing.T, dir string) func() uint64 {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "maps-4", "counters"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return func() (sum uint64) {
		var perCPU []uint64
		if err := m.Lookup(uint32(datapath.Relayed), &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, n := range perCPU {
			sum += n
		}
		return sum
	}
}

// leftInPinned checks that a pinned program has one session, and the current IDs of its
// legs.
func leftInPinned(t *testing.T, dir string) {
	t.Helper()
	p, err := xdp.Load(&xdp.Config{Sessions: 64, Pin: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stage := xdptest.Relay(t, p)
	var live []uint32
	for index := range stage.Sessions() {
		if legs, err := stage.Session(index); legs[0].Valid() && legs[1].Valid() && err == nil {
			live = append(live, index)
		}
	}
	if len(live) != 1 {
		t.Fatalf("sessions %v, want one", live)
	}
	ids := 0
	for route := range stage.Routes() {
		ids++
		if route.Session != live[0] {
			t.Errorf("an ID leads to session %d", route.Session)
		}
	}
	if want := 2 * cid.Ahead; ids != want {
		t.Errorf("%d IDs, want %d", ids, want)
	}
}
