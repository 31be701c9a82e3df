package xdp

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/nettest"
)

// unplug deletes an interface.
func unplug(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rename gives an interface another name. Older kernels want it down for that.
func rename(t *testing.T, from, to string) {
	t.Helper()
	link, err := netlink.LinkByName(from)
	if err == nil {
		err = errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, to), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// indexOf returns the index of the interface that the program is on, or 0.
func indexOf(p *Program, name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.attached {
		if a.name == name {
			return a.index
		}
	}
	return 0
}

// within waits until something is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// TestInterfaceMadeAnew: the program is attached again to an interface that is deleted
// and made anew, at once or after a while, and forwards there.
func TestInterfaceMadeAnew(t *testing.T) {
	for _, atOnce := range []bool{true, false} {
		nettest.Namespace(t)
		w := &wire{TB: t, key: cid.NewKey()}
		w.in = w.link("in0", relayAB, alice, bob)
		w.program = mustLoad(t, &Config{Sessions: 16})
		if _, err := w.program.Attach("in0", Auto); err != nil {
			t.Fatal(err)
		}
		if err := w.program.OpenPort(relayPort); err != nil {
			t.Fatal(err)
		}
		w.session(0, bob, relayAB)
		unplug(t, "in0")
		if !atOnce {
			within(t, "the program leaves the interface", func() bool { return indexOf(w.program, "in0") == 0 })
		}
		w.in = w.link("in0", relayAB, alice, bob)
		within(t, "the program is on the new interface", func() bool { return indexOf(w.program, "in0") == w.in.Index })
		w.forwardsOne(ifaceKind{})
		if err := w.program.Detach("in0"); err != nil {
			t.Error(err)
		}
		unplug(t, "in0")
	}
}

// TestInterfaceRenamed: an interface that gets another name keeps the program, and the
// program can be detached by that name.
func TestInterfaceRenamed(t *testing.T) {
	nettest.Namespace(t)
	w := &wire{TB: t, key: cid.NewKey()}
	w.veth("in0")
	p := mustLoad(t, &Config{Sessions: 1})
	if _, err := p.Attach("in0", Generic); err != nil {
		t.Fatal(err)
	}
	index := indexOf(p, "in0")
	rename(t, "in0", "in1")
	rename(t, "in0p", "in1p")
	other := w.link("in0", relayAB)
	if got := indexOf(p, "in0"); got != index || got == other.Index {
		t.Errorf("attached to interface %d, want %d", got, index)
	}
	if err := p.Detach("in1"); err != nil {
		t.Error(err)
	}
	if len(p.followers) != 0 || len(p.attached) != 0 {
		t.Errorf("%d followers and %d interfaces are left", len(p.followers), len(p.attached))
	}
}

// TestNotAttachedAgain: nobody attaches the program to an interface made anew after
// Detach, whether the interface was there at that time or not.
func TestNotAttachedAgain(t *testing.T) {
	nettest.Namespace(t)
	w := &wire{TB: t, key: cid.NewKey()}
	w.veth("in0")
	p := mustLoad(t, &Config{Sessions: 1})
	if _, err := p.Attach("in0", Generic); err != nil {
		t.Fatal(err)
	}
	unplug(t, "in0")
	within(t, "the program leaves the interface", func() bool { return indexOf(p, "in0") == 0 })
	if err := p.Detach("in0"); err != nil {
		t.Error(err)
	}
	if len(p.followers) != 0 {
		t.Error("somebody waits for the interface")
	}
}
