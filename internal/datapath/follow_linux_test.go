package datapath

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
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
		if err := w.program.relay.OpenPort(relayPort); err != nil {
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

// attachedWire is an interface in0 that the program is on.
func attachedWire(t *testing.T) (*wire, *Program) {
	t.Helper()
	nettest.Namespace(t)
	w := &wire{TB: t, key: cid.NewKey()}
	w.veth("in0")
	p := mustLoad(t, &Config{Sessions: 1})
	if _, err := p.Attach("in0", Generic); err != nil {
		t.Fatal(err)
	}
	return w, p
}

// looked waits until every follower has looked after all that has happened.
func checked(t *testing.T, p *Program) {
	t.Helper()
	for f := range p.followers {
		if err := f.check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestInterfaceRenamed: an interface that gets another name keeps the program, and so
// does another that gets the name and is deleted and made anew.
func TestInterfaceRenamed(t *testing.T) {
	w, p := attachedWire(t)
	old := indexOf(p, "in0")
	rename(t, "in0", "in1")
	rename(t, "in0p", "in1p")
	other := w.link("in0", relayAB)
	checked(t, p)
	if got := indexOf(p, "in0"); got != old || got == other.Index {
		t.Errorf("attached to interface %d, want %d", got, old)
	}
	if _, err := p.Attach("in0", Generic); err != nil {
		t.Fatal(err)
	}
	unplug(t, "in0")
	other = w.link("in0", relayAB)
	within(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
	if err := p.Detach("in1"); err != nil {
		t.Error(err)
	}
	checked(t, p)
	if attachedTo(t, "in0") == 0 || attachedTo(t, "in1") != 0 {
		t.Error("the program was detached from another interface")
	}
	if len(p.followers) != 1 || len(p.attached) != 1 || p.attached[other.Index] == nil {
		t.Errorf("%d followers and %d interfaces are left", len(p.followers), len(p.attached))
	}
}

// TestInterfaceWithOldIndex: an interface made anew is noticed even if it has the index
// of the one before.
func TestInterfaceWithOldIndex(t *testing.T) {
	_, p := attachedWire(t)
	p.mu.Lock() // the follower sees nothing meanwhile
	index := 0
	for i := range p.attached {
		index = i
	}
	unplug(t, "in0")
	anew := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "in0", Index: index}, PeerName: "in0p"}
	err := netlink.LinkAdd(anew)
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
}

// TestAttachOfTheFollowed: whoever attaches to an interface made anew by himself gets
// no error, and a mode that cannot be had costs nothing.
func TestAttachOfTheFollowed(t *testing.T) {
	w, p := attachedWire(t)
	unplug(t, "in0")
	w.veth("in0")
	within(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
	peer, err := netlink.LinkByName("in0p")
	if err == nil {
		err = netlink.LinkSetMTU(peer, 9000)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Attach("in0", Native); !errors.Is(err, ErrMTU) {
		t.Errorf("Attach: %v, want %v", err, ErrMTU)
	}
	within(t, "the program is on the interface again", func() bool { return attachedTo(t, "in0") != 0 })
	if _, err := p.Attach("in0", Auto); err != nil {
		t.Errorf("Attach: %v", err)
	}
	if _, err := p.Attach("in0", Auto); !errors.Is(err, ErrBusy) {
		t.Errorf("Attach twice: %v, want %v", err, ErrBusy)
	}
}

// TestDetachEndsFollower: nobody waits for an interface after Detach, whether the
// interface is there or not.
func TestDetachEndsFollower(t *testing.T) {
	nettest.Namespace(t)
	w := &wire{TB: t, key: cid.NewKey()}
	p := mustLoad(t, &Config{Sessions: 1})
	for _, there := range []bool{true, false} {
		w.veth("in0")
		if _, err := p.Attach("in0", Generic); err != nil {
			t.Fatal(err)
		}
		if !there {
			unplug(t, "in0")
			within(t, "the program leaves the interface", func() bool { return indexOf(p, "in0") == 0 })
		}
		if err := p.Detach("in0"); err != nil {
			t.Error(err)
		}
		if len(p.followers) != 0 || len(p.attached) != 0 {
			t.Errorf("%d followers and %d interfaces are left", len(p.followers), len(p.attached))
		}
		if there {
			unplug(t, "in0")
		}
	}
}
