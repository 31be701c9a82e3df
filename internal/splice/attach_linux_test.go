package splice

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// attachedTo returns how many programs are attached to an interface at ingress and at egress.
func attachedTo(t *testing.T, iface *net.Interface) (out [2]int) {
	t.Helper()
	for i, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: iface.Index, Attach: hook})
		if err != nil {
			t.Fatal(err)
		}
		out[i] = len(result.Programs)
	}
	return out
}

// TestAttach checks that the programs are attached until Detach or Close, and that the garbage
// collector does not detach them.
func TestAttach(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	q0, q1 := newVeth(t)
	p := mustLoad(t, &Config{MaxPairs: 2})
	for _, iface := range []*net.Interface{q0, q1} {
		if err := p.Attach(iface.Name); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		runtime.GC()
	}
	if got := attachedTo(t, q0); got != [2]int{1, 1} {
		t.Errorf("%v programs, want one of each", got)
	}
	if err := p.Attach("q0"); !errors.Is(err, ErrBusy) {
		t.Errorf("attached twice: %v, want %v", err, ErrBusy)
	}
	for range 2 {
		if err := p.Detach(t.Context(), "q0"); err != nil {
			t.Error(err)
		}
	}
	if got := attachedTo(t, q0); got != [2]int{} {
		t.Errorf("%v programs after Detach", got)
	}
	if err := p.Attach("q0"); err != nil {
		t.Errorf("attach again: %v", err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := [][2]int{attachedTo(t, q0), attachedTo(t, q1)}; got[0] != [2]int{} || got[1] != [2]int{} {
		t.Errorf("%v programs after Close", got)
	}
}

// TestAttachBesides checks that two programs can be attached to one interface: TCX runs one after
// the other.
func TestAttachBesides(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	q0, _ := newVeth(t)
	for range 2 {
		if err := mustLoad(t, &Config{MaxPairs: 2}).Attach("q0"); err != nil {
			t.Fatal(err)
		}
	}
	if got := attachedTo(t, q0); got != [2]int{2, 2} {
		t.Errorf("%v programs, want two of each", got)
	}
}

// TestAttachErrors checks the errors of Attach, and of all methods after Close.
func TestAttachErrors(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	newVeth(t)
	p := mustLoad(t, &Config{MaxPairs: 2})
	if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN}); err == nil {
		if err := p.Attach("tun0"); !errors.Is(err, ErrUnsupported) {
			t.Errorf("an interface without Ethernet: %v, want %v", err, ErrUnsupported)
		}
	}
	if err := p.Attach("lo"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("lo: %v, want %v", err, ErrUnsupported)
	}
	if err := p.Attach("nothing"); err == nil {
		t.Error("an interface that does not exist: no error")
	}
	for range 2 {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := p.Attach("q0"); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Attach: %v, want %v", err, ErrClosed)
	}
	if _, err := p.Stats(); !errors.Is(err, ErrClosed) {
		t.Errorf("Stats: %v, want %v", err, ErrClosed)
	}
}

// TestInterfaceGone checks that an interface can be deleted, and that another one with its name can
// be attached.
func TestInterfaceGone(t *testing.T) {
	t.Parallel()
	nettest.Namespace(t)
	newVeth(t)
	p := mustLoad(t, &Config{MaxPairs: 2})
	for range 2 {
		if err := p.Attach("q0"); err != nil {
			t.Fatal(err)
		}
		l, err := netlink.LinkByName("q0")
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			t.Fatal(err)
		}
		newVeth(t)
	}
	if err := p.Detach(t.Context(), "q0"); err != nil {
		t.Error(err)
	}
}

// TestConfig checks the bounds of the configuration.
func TestConfig(t *testing.T) {
	for _, n := range []int{-1, maxPairs + 1} {
		if _, err := Load(&Config{MaxPairs: n}); !errors.Is(err, ErrConfig) {
			t.Errorf("%d pairs: %v, want %v", n, err, ErrConfig)
		}
	}
}

// capableProcess is the environment variable of the processes of TestCapabilities.
const capableProcess = "QUICWAY_TEST_CAPABLE"

// TestCapabilities checks which capabilities Load needs.
func TestCapabilities(t *testing.T) {
	if os.Getenv(capableProcess) != "" {
		_, err := Load(nil)
		switch {
		case err == nil:
			t.Log("outcome: loaded")
		case errors.Is(err, ErrPermission):
			t.Log("outcome: no permission")
		default:
			t.Logf("outcome: %v%s", err, verifierLog(err))
		}
		return
	}
	mustLoad(t, nil)
	for _, test := range []struct {
		capabilities []uintptr
		want         string
	}{
		{nil, "no permission"},
		{[]uintptr{unix.CAP_NET_ADMIN}, "no permission"},
		{[]uintptr{unix.CAP_BPF}, "no permission"},
		{[]uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}, "no permission"},
		{[]uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, "loaded"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestCapabilities$", "-test.v")
		cmd.Env = append(os.Environ(), capableProcess+"=1")
		out, err := nettest.RunWithCapabilities(cmd, test.capabilities...)
		if err != nil || !strings.Contains(string(out), "outcome: "+test.want) {
			t.Errorf("capabilities %v: %v, want %q\n%s", test.capabilities, err, test.want, out)
		}
	}
}
