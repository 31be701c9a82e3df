package datapath

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// deleteLink deletes an interface.
func deleteLink(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// renameLink renames an interface. Older kernels require that it is down.
func renameLink(t *testing.T, from, to string) {
	t.Helper()
	link, err := netlink.LinkByName(from)
	if err == nil {
		err = errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, to), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// indexOf returns the index of the interface with this name that the program is attached to, or 0.
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

// TestInterfaceRecreated checks that the program is attached again to an interface that is
// deleted and recreated, at once or later, and that it forwards packets there.
func TestInterfaceRecreated(t *testing.T) {
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
		deleteLink(t, "in0")
		if !atOnce {
			nettest.Eventually(t, "the program leaves the interface", func() bool { return indexOf(w.program, "in0") == 0 })
		}
		w.in = w.link("in0", relayAB, alice, bob)
		nettest.Eventually(t, "the program is on the new interface", func() bool { return indexOf(w.program, "in0") == w.in.Index })
		w.forwardsOne(ifaceKind{})
		if err := w.program.Detach("in0"); err != nil {
			t.Error(err)
		}
		deleteLink(t, "in0")
	}
}

// attachedWire creates an interface in0, and attaches a program to it.
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

// checkFollowers makes every follower check its interface after all changes so far.
func checked(t *testing.T, p *Program) {
	t.Helper()
	for f := range p.followers {
		if err := f.check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestInterfaceRenamed checks that an interface that is renamed keeps the program, and that the
// program follows another interface that then gets the name, and is deleted and recreated.
func TestInterfaceRenamed(t *testing.T) {
	w, p := attachedWire(t)
	old := indexOf(p, "in0")
	renameLink(t, "in0", "in1")
	renameLink(t, "in0p", "in1p")
	other := w.link("in0", relayAB)
	checked(t, p)
	if got := indexOf(p, "in0"); got != old || got == other.Index {
		t.Errorf("attached to interface %d, want %d", got, old)
	}
	if _, err := p.Attach("in0", Generic); err != nil {
		t.Fatal(err)
	}
	deleteLink(t, "in0")
	other = w.link("in0", relayAB)
	nettest.Eventually(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
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

// TestInterfaceWithOldIndex checks that the follower notices an interface that was recreated with
// the same index.
func TestInterfaceWithOldIndex(t *testing.T) {
	_, p := attachedWire(t)
	p.mu.Lock() // the follower waits until both changes are made
	index := 0
	for i := range p.attached {
		index = i
	}
	deleteLink(t, "in0")
	anew := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "in0", Index: index}, PeerName: "in0p"}
	err := netlink.LinkAdd(anew)
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
}

// TestAttachAfterFollower checks that Attach returns no error for an interface to which the
// follower has attached the program, and that the program stays attached if Attach fails because
// its mode is not possible.
func TestAttachAfterFollower(t *testing.T) {
	w, p := attachedWire(t)
	deleteLink(t, "in0")
	w.veth("in0")
	nettest.Eventually(t, "the program is on the new interface", func() bool { return attachedTo(t, "in0") != 0 })
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
	nettest.Eventually(t, "the program is on the interface again", func() bool { return attachedTo(t, "in0") != 0 })
	if _, err := p.Attach("in0", Auto); err != nil {
		t.Errorf("Attach: %v", err)
	}
	if _, err := p.Attach("in0", Auto); !errors.Is(err, ErrBusy) {
		t.Errorf("Attach twice: %v, want %v", err, ErrBusy)
	}
}

// TestDetachEndsFollower checks that Detach ends the follower, whether the interface exists or not.
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
			deleteLink(t, "in0")
			nettest.Eventually(t, "the program leaves the interface", func() bool { return indexOf(p, "in0") == 0 })
		}
		if err := p.Detach("in0"); err != nil {
			t.Error(err)
		}
		if len(p.followers) != 0 || len(p.attached) != 0 {
			t.Errorf("%d followers and %d interfaces are left", len(p.followers), len(p.attached))
		}
		if there {
			deleteLink(t, "in0")
		}
	}
}
