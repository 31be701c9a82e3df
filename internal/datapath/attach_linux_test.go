package datapath

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// newVeth creates a network namespace with the veth pair q0 and q1.
func newVeth(t *testing.T, mtu int) {
	t.Helper()
	nettest.Namespace(t)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "q0", MTU: mtu}, PeerName: "q1"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T) *Program {
	t.Helper()
	return mustLoad(t, &Config{Sessions: 4})
}

// attachedTo returns the ID of the program on an interface, or 0.
func attachedTo(t *testing.T, name string) uint32 {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if l.Attrs().Xdp == nil {
		return 0
	}
	return l.Attrs().Xdp.ProgId
}

// TestAttachModes checks that Attach uses the given mode, or returns an error, and that Auto
// uses a mode that is possible.
func TestAttachModes(t *testing.T) {
	for _, test := range []struct {
		name      string
		mtu       int
		mode, got Mode
		want      error
	}{
		{"auto", 1500, Auto, Generic, nil},
		{"native", 1500, Native, Native, nil},
		{"generic", 1500, Generic, Generic, nil},
		{"auto, large MTU", 9000, Auto, Generic, nil},
		{"native, large MTU", 9000, Native, Native, ErrMTU},
	} {
		t.Run(test.name, func(t *testing.T) {
			newVeth(t, test.mtu)
			p := load(t)
			got, err := p.Attach("q0", test.mode)
			if got != test.got || !errors.Is(err, test.want) {
				t.Errorf("%v, %v, want %v, %v", got, err, test.got, test.want)
			}
			if attached := attachedTo(t, "q0") != 0; attached != (test.want == nil) {
				t.Errorf("attached: %v", attached)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if id := attachedTo(t, "q0"); id != 0 {
				t.Errorf("program %d is left after Close", id)
			}
		})
	}
}

// TestAutoIsNativeOnVeth checks that Auto tries native mode on a veth if the program has no relay
// stage, because such a program sends no packets that a veth could drop.
func TestAutoIsNativeOnVeth(t *testing.T) {
	newVeth(t, 1500)
	p := mustLoad(t, &Config{Stages: []Stage{QuotaStage}})
	if got, err := p.Attach("q0", Auto); got != Native || err != nil {
		t.Errorf("%v, %v, want %v", got, err, Native)
	}
	if err := p.Detach("q0"); err != nil {
		t.Error(err)
	}
	newVeth(t, 9000)
	if got, err := p.Attach("q0", Auto); got != Generic || err != nil {
		t.Errorf("%v, %v with a large MTU, want %v", got, err, Generic)
	}
}

// TestAttachErrors checks the errors of Attach and Detach, and of all methods after Close.
func TestAttachErrors(t *testing.T) {
	newVeth(t, 1500)
	first, second := load(t), load(t)
	if _, err := first.Attach("q0", Auto); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []Mode{Auto, Native, Generic} {
		_, err := second.Attach("q0", mode)
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), `"quicway"`) {
			t.Errorf("%v on a busy interface: %v", mode, err)
		}
	}
	if _, err := first.Attach("q0", Auto); !errors.Is(err, ErrBusy) {
		t.Errorf("attached twice: %v", err)
	}
	if _, err := first.Attach("lo", Native); !errors.Is(err, ErrUnsupported) {
		t.Errorf("native on loopback: %v, want %v", err, ErrUnsupported)
	}
	if _, err := first.Attach("no-such", Auto); err == nil {
		t.Error("attached to an interface that does not exist")
	}
	if err := first.Detach("no-such"); err != nil {
		t.Errorf("detach from an interface that does not exist: %v", err)
	}
	if err := first.Detach("q0"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Attach("q0", Auto); err != nil {
		t.Errorf("after the first program was detached: %v", err)
	}
	for range 2 {
		if err := second.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := second.Attach("q0", Auto); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("attach after Close: %v", err)
	}
	_, statsErr := second.Stats()
	_, trafficErr := second.relay.Traffic(0)
	for name, err := range map[string]error{
		"Stats": statsErr, "Traffic": trafficErr, "SetNext": second.SetNext(-1),
		"OpenPort": second.relay.OpenPort(1), "ClosePort": second.relay.ClosePort(1),
		"PutRoute": second.relay.PutRoute(cid.ID{}, Route{}), "DeleteRoute": second.relay.DeleteRoute(cid.ID{}, Route{}),
		"PutSession": second.relay.PutSession(0, [2]Leg{}), "SetDue": second.relay.SetDue(0, 0, 0),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want %v", name, err, ErrClosed)
		}
	}
}

// TestConfigRefused checks that Load refuses values that are out of range, and bounds for stages
// that Stages lacks.
func TestConfigRefused(t *testing.T) {
	quota, monitor := []Stage{QuotaStage}, []Stage{MonitorStage}
	for _, conf := range []Config{
		{Stages: quota, Prefixes: -1}, {Stages: quota, Sources: -1}, {Stages: quota, Attempts: maxEntries + 1},
		{Sessions: maxSessions + 1}, {IDs: -1}, {IDs: maxIDs + 1}, {Stages: monitor, Flows: maxFlows + 1},
		{Stages: []Stage{numStages}}, {Prefixes: 1}, {Flows: 1}, {Stages: quota, Sessions: 1},
	} {
		if _, err := Load(&conf); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v, want %v", conf, err, ErrConfig)
		}
	}
}

// TestRelayFull checks that PutSession and PutRoute return ErrFull when there is no room.
func TestRelayFull(t *testing.T) {
	w := newWire(t)
	w.program.Close()
	p, err := Load(&Config{Sessions: 2, IDs: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.relay.PutSession(2, [2]Leg{}); !errors.Is(err, ErrFull) {
		t.Errorf("third session: %v, want %v", err, ErrFull)
	}
	for counter := range uint64(routeSlots + 1) { // three IDs have one set
		err := p.relay.PutRoute(w.key.ID(0, counter), Route{})
		if want := counter == uint64(routeSlots); errors.Is(err, ErrFull) != want {
			t.Errorf("ID %d: %v", counter, err)
		}
	}
	if n := countRoutes(p); n != routeSlots {
		t.Errorf("%d routes, want %d", n, routeSlots)
	}
}

// TestSetNext checks that the next program gets packets that are passed, but not those that are
// relayed.
func TestSetNext(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	next, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Instructions: dropAll, License: "MIT"})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := w.program.SetNext(next.FD()); err != nil {
		t.Fatal(err)
	}
	good, other := w.good(0), w.good(0)
	other.Payload[5]++
	w.run(good.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	w.run(other.Build(edgeMAC, w.in.HardwareAddr), Drop, PassUnknown)
	for range 2 {
		if err := w.program.SetNext(-1); err != nil {
			t.Fatal(err)
		}
	}
	w.run(other.Build(edgeMAC, w.in.HardwareAddr), Pass, PassUnknown)
}

// TestCapabilities checks that CAP_BPF and CAP_NET_ADMIN are sufficient from Linux 6.18 on, and
// that earlier kernels also need CAP_PERFMON, as the error says. The test runs itself in a child
// process without the other capabilities.
func TestCapabilities(t *testing.T) {
	if caps := os.Getenv("QUICWAY_TEST_CAPS"); caps != "" {
		dir := os.Getenv("QUICWAY_TEST_PIN")
		conf := &Config{Pin: dir}
		switch caps {
		case "enough for the quota":
			conf.Stages = []Stage{RelayStage, QuotaStage}
		case "enough for the monitor":
			conf.Stages = []Stage{MonitorStage}
		case "enough for all stages":
			conf.Stages = []Stage{RelayStage, QuotaStage, MonitorStage}
		}
		p, err := Load(conf)
		if caps == "none" {
			if !errors.Is(err, ErrPermission) || strings.Contains(err.Error(), "MEMLOCK") {
				t.Errorf("%v, want %v without other reasons", err, ErrPermission)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left after a failure: %v", err)
			}
			return
		}
		if !nettest.KernelAtLeast(t, 6, 18) {
			wantsPerfmon(t, p, err)
			return
		}
		if err != nil {
			t.Fatalf("%+v", err)
		}
		defer p.Close()
		for _, stage := range conf.Stages {
			if err := p.StageErr(stage); err != nil {
				t.Errorf("stage %v: %v", stage, err)
			}
		}
		if slices.Contains(conf.Stages, QuotaStage) {
			deniesSource(t, p)
		}
		if _, err := p.Attach("lo", Generic); err != nil {
			t.Error(err)
		}
		if err := p.Detach("lo"); err != nil { // otherwise the pinned program would stay
			t.Error(err)
		}
		return
	}
	nettest.Namespace(t)
	dir := nettest.BPFFS(t)
	most := []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}
	for name, caps := range map[string][]uintptr{
		"enough": most, "enough for the quota": most, "enough for the monitor": most, "enough for all stages": most, "none": nil,
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestCapabilities$", "-test.v")
		cmd.Env = append(os.Environ(), "QUICWAY_TEST_CAPS="+name, "QUICWAY_TEST_PIN="+filepath.Join(dir, name))
		if out, err := nettest.RunWithCapabilities(cmd, caps...); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// deniesSource checks that a program drops packets of a denied source.
func deniesSource(t *testing.T, p *Program) {
	q, err := p.Quota()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	from := netip.MustParseAddrPort("192.0.2.1:1000")
	err = errors.Join(q.SetPolicy(&QuotaPolicy{IPv4Bits: 32, IPv6Bits: 64}), q.Guard(guardPort, 4), q.Renew(time.Hour),
		q.Put(DenyList, netip.PrefixFrom(from.Addr(), 32), time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if verdict, _, err := p.Test(0, frameTo(guardPort, from, []byte{0x40})); verdict != Drop || err != nil {
		t.Errorf("verdict %d for a denied source, %v, want %d", verdict, err, Drop)
	}
}

// dropAll is a program that drops all packets.
var dropAll = asm.Instructions{asm.Mov.Imm(asm.R0, int32(Drop)), asm.Return()}

func countRoutes(p *Program) (n int) {
	for range p.relay.Routes() {
		n++
	}
	return n
}
