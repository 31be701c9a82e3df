package datapath

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

func loadPinned(t *testing.T, dir string, sessions int) *Program {
	t.Helper()
	p := mustLoad(t, &Config{Sessions: sessions, Pin: dir})
	return p
}

// pinnedLegs are the legs of sessions that the next process takes over.
var pinnedLegs = [][2]Leg{
	{
		{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("192.0.2.9:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("192.0.2.8:4433")},
	},
	{
		{Remote: netip.MustParseAddrPort("[2001:db8::1]:1"), Local: netip.MustParseAddrPort("[2001:db8::9]:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("192.0.2.8:4433")},
	},
}

// TestPin checks that the next process takes over the maps and the interface, and that Unpin
// removes everything.
func TestPin(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			newVeth(t, 1500)
			dir := filepath.Join(nettest.BPFFS(t), "a", "quicway")
			first := loadPinned(t, dir, 4)
			if !first.Pinned() {
				t.Error("not pinned")
			}
			id, route := cid.NewKey().ID(cid.Peer, 1<<32+7), Route{Session: 1, Leg: 1, Counter: 7}
			putState(t, first, id, route)
			if _, err := first.Attach("q0", mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(&Config{Pin: dir}); !errors.Is(err, ErrBusy) {
				t.Errorf("loaded by two programs at once: %v, want %v", err, ErrBusy)
			}
			if err := Unpin(dir); !errors.Is(err, ErrBusy) {
				t.Errorf("unpinned while it is used: %v, want %v", err, ErrBusy)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			before := attachedTo(t, "q0")
			if before == 0 {
				t.Fatal("not attached after Close")
			}

			second := loadPinned(t, dir, 4)
			wantState(t, second, id, route)
			if attachedTo(t, "q0") != before {
				t.Error("loading has changed the interface")
			}
			if got, err := second.Attach("q0", Auto); got != mode || err != nil {
				t.Errorf("taken over in mode %v, %v, want %v", got, err, mode)
			}
			if now := attachedTo(t, "q0"); now == before || now == 0 {
				t.Errorf("program %d is attached after %d", now, before)
			}
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			if err := Unpin(dir); err != nil {
				t.Error(err)
			}
			if id := attachedTo(t, "q0"); id != 0 {
				t.Errorf("program %d is left", id)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory is left: %v", err)
			}
			if err := Unpin(dir); err != nil {
				t.Errorf("unpin a directory that does not exist: %v", err)
			}
		})
	}
}

// putState adds sessions, a port and a route.
func putState(t *testing.T, p *Program, id cid.ID, route Route) {
	t.Helper()
	for i, legs := range pinnedLegs {
		if err := p.relay.PutSession(uint32(i), legs); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.relay.OpenPort(4433), p.relay.PutRoute(id, route)); err != nil {
		t.Fatal(err)
	}
}

// wantState checks that a program has what putState has added.
func wantState(t *testing.T, p *Program, id cid.ID, route Route) {
	t.Helper()
	for i, want := range pinnedLegs {
		if got, err := p.relay.Session(uint32(i)); got != want || err != nil {
			t.Errorf("session %d: %v, %v, want %v", i, got, err, want)
		}
	}
	if got, err := p.relay.Session(2); got != [2]Leg{} || err != nil {
		t.Errorf("a session that does not exist: %v, %v", got, err)
	}
	if got, ok, err := p.relay.Route(id); got != route || !ok || err != nil {
		t.Errorf("route %v, %v, %v, want %v", got, ok, err, route)
	}
	if _, ok, err := p.relay.Route(cid.NewKey().ID(cid.Peer, 0)); ok || err != nil {
		t.Errorf("a route that does not exist: %v, %v", ok, err)
	}
	// A port of the same word stays open when another port is opened.
	if err := p.relay.OpenPort(4434); err != nil {
		t.Fatal(err)
	}
	var word uint64
	if err := p.objects.Ports.Lookup(uint32(4433/64), &word); err != nil || word != 3<<(4433%64) {
		t.Errorf("open ports: %b, %v", word, err)
	}
}

// TestPinIncompatible checks that a program replaces pinned maps of another size, an attachment in
// another mode, and an attachment to an interface that was deleted.
func TestPinIncompatible(t *testing.T) {
	newVeth(t, 1500)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	id, route := cid.NewKey().ID(cid.Peer, 7), Route{Session: 1}
	first := loadPinned(t, dir, 4)
	putState(t, first, id, route)
	if _, err := first.Attach("q0", Generic); err != nil {
		t.Fatal(err)
	}
	first.Close()

	larger := loadPinned(t, dir, 8)
	if _, ok, err := larger.relay.Route(id); ok || err != nil {
		t.Errorf("maps of another size were taken over: %v, %v", ok, err)
	}
	if got, err := larger.Attach("q0", Native); got != Native || err != nil {
		t.Errorf("attached in mode %v, %v, want %v", got, err, Native)
	}
	larger.Close()

	if err := netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "q0"}}); err != nil {
		t.Fatal(err)
	}
	index := indexOfPin(t, dir)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "q0", Index: index}, PeerName: "q1"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	another := loadPinned(t, dir, 8)
	if _, err := another.Attach("q0", Native); err != nil {
		t.Errorf("on another interface with the index of a deleted one: %v", err)
	}
	if err := another.Detach("q0"); err != nil {
		t.Fatal(err)
	}
	if links, err := filepath.Glob(filepath.Join(dir, pinnedLinks+"*")); len(links) != 0 || err != nil {
		t.Errorf("left after Detach: %v, %v", links, err)
	}
}

// indexOfPin returns the index of the interface whose attachment is pinned.
func indexOfPin(t *testing.T, dir string) int {
	t.Helper()
	links, err := filepath.Glob(filepath.Join(dir, pinnedLinks+"*"))
	if err != nil || len(links) != 1 {
		t.Fatalf("pinned links: %v, %v, want one", links, err)
	}
	index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(links[0]), pinnedLinks))
	if err != nil {
		t.Fatalf("%s names no interface", links[0])
	}
	return index
}

// TestPinRefused checks that Load and Unpin refuse a directory that is not on a BPF file system.
func TestPinRefused(t *testing.T) {
	nettest.Namespace(t)
	dir := filepath.Join(t.TempDir(), "quicway")
	if _, err := Load(&Config{Pin: dir}); !errors.Is(err, ErrConfig) {
		t.Errorf("pinned on another file system: %v, want %v", err, ErrConfig)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left after a failure: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(dir); !errors.Is(err, ErrConfig) {
		t.Errorf("unpinned on another file system: %v, want %v", err, ErrConfig)
	}
}

// TestFailedLoadLeavesNothing checks that Load closes all file descriptors if its last step fails.
func TestFailedLoadLeavesNothing(t *testing.T) {
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	mustLoad(t, nil) // opens the descriptors that the process keeps
	if err := os.MkdirAll(filepath.Join(dir, pinnedMaps), 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	keys := newRouteKeys() // without keys all maps would be replaced
	err = errors.Join(pinRouteKeys(filepath.Join(dir, pinnedMaps, pinnedKeys), &keys), other.Pin(filepath.Join(dir, pinnedMaps, pinnedNotes)))
	if err != nil {
		t.Fatal(err)
	}
	before := countDescriptors(t)
	if _, err := Load(&Config{Stages: []Stage{RelayStage, QuotaStage, MonitorStage}, Sessions: 4, Flows: 16, Pin: dir}); err == nil {
		t.Fatal("loaded with an invalid map of notes")
	}
	if after := countDescriptors(t); after > before { // the garbage collector may have closed some of other tests
		t.Errorf("%d descriptors, want at most %d as before", after, before)
	}
}

// countDescriptors returns the number of open file descriptors of the process.
func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
