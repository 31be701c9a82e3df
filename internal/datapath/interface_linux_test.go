package datapath

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// TestDetachPinned checks that Detach also detaches a program that only an earlier process has
// attached.
func TestDetachPinned(t *testing.T) {
	newVeth(t, 1500)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	first := loadPinned(t, dir, 4)
	for _, name := range []string{"q0", "q1"} {
		if _, err := first.Attach(name, Native); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	second := loadPinned(t, dir, 4)
	if _, err := second.Attach("q0", Auto); err != nil {
		t.Fatal(err)
	}
	if err := second.Detach("q1"); err != nil {
		t.Fatal(err)
	}
	if id := attachedTo(t, "q1"); id != 0 {
		t.Errorf("program %d is left on q1", id)
	}
	if attachedTo(t, "q0") == 0 {
		t.Error("nothing is left on q0")
	}
}

// TestInterfaceChanges checks that Detach works after an interface was renamed, and that Attach
// works after an interface was recreated.
func TestInterfaceChanges(t *testing.T) {
	newVeth(t, 1500)
	p := load(t)
	if _, err := p.Attach("q0", Native); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("q0")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "lan0")); err != nil {
		t.Fatal(err)
	}
	if err := p.Detach("lan0"); err != nil {
		t.Fatal(err)
	}
	if id := attachedTo(t, "lan0"); id != 0 {
		t.Errorf("program %d is left on the renamed interface", id)
	}
	if _, err := p.Attach("lan0", Native); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "q1"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Attach("lan0", Native); err != nil {
		t.Errorf("on an interface that was recreated: %v", err)
	}
	if attachedTo(t, "lan0") == 0 {
		t.Error("no program is attached to it")
	}
	if len(p.attached) != 1 {
		t.Errorf("%d attachments, want 1", len(p.attached))
	}
}

// TestInvalidLeg checks that a leg other than 0 and 1 is refused, and that nothing is written to
// the next session.
func TestInvalidLeg(t *testing.T) {
	newVeth(t, 1500)
	p := load(t)
	before := slices.Clone(p.relay.legs.legs[:8])
	if err := p.relay.SetDue(1, 2, 7); !errors.Is(err, ErrConfig) {
		t.Errorf("set due of leg 2: %v, want %v", err, ErrConfig)
	}
	for _, r := range []Route{{Session: 1, Leg: 2}, {Session: 1 << sessionBits}} {
		if err := p.relay.PutRoute(cid.NewKey().ID(cid.Peer, 1), r); !errors.Is(err, ErrConfig) {
			t.Errorf("put %+v: %v, want %v", r, err, ErrConfig)
		}
	}
	if n := countRoutes(p); n != 0 {
		t.Errorf("%d routes, want none", n)
	}
	if !slices.Equal(before, p.relay.legs.legs[:8]) {
		t.Error("legs have changed")
	}
}

// TestTestAfterClose checks that Test and TestEgress return ErrClosed after Close.
func TestTestAfterClose(t *testing.T) {
	newVeth(t, 1500)
	p := load(t)
	p.Close()
	if _, _, err := p.Test(1, make([]byte, 64)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want %v", err, ErrClosed)
	}
	if _, _, err := p.TestEgress(1, make([]byte, 64), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want %v", err, ErrClosed)
	}
}
