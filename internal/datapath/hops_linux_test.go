package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
)

// hopsOf returns the places in the table of next hops.
func hopsOf(t *testing.T, p *Program) []datapathHop {
	t.Helper()
	memory, commons, err := mapMemory[datapathCommon](p.objects.Commons)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.close() })
	return commons[0].Hop[:]
}

// usedHops returns how many places have a next hop.
func usedHops(hops []datapathHop) (n int) {
	for i := range hops {
		if hops[i].Tenant != 0 {
			n++
		}
	}
	return n
}

// TestNextHopsShared checks that legs share a next hop, and that a change of interfaces voids it.
func TestNextHopsShared(t *testing.T) {
	w := manyWire(t, &Config{Sessions: 16})
	hops := hopsOf(t, w.program)
	send := func() {
		for s := range uint32(16) {
			id := testID(1, 2, byte(s))
			if err := w.program.relay.PutRoute(id, Route{Session: s, Leg: 1}); err != nil {
				t.Fatal(err)
			}
			w.leads(id, s)
		}
	}
	send()
	if n := usedHops(hops); n != 1 {
		t.Errorf("%d next hops, want 1", n)
	}
	if err := w.program.Detach("out0"); err != nil {
		t.Fatal(err)
	}
	send()
	if n := usedHops(hops); n != 2 {
		t.Errorf("%d next hops after a change of interfaces, want another one", n)
	}
}

// TestNextHopsFull checks that packets are forwarded if the table of next hops has no room, each by
// another look-up, and that a next hop that was in the table for long gives up its place.
func TestNextHopsFull(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	f := w.good(0)
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	w.run(frame, TX, Relayed)
	hops := hopsOf(t, w.program)
	at := slices.IndexFunc(hops, func(h datapathHop) bool { return h.Tenant != 0 })
	now, mine := hops[at].Since, hops[at]
	for i := range hops {
		hops[i] = datapathHop{Tenant: 1<<32 | uint64(w.in.Index), Epoch: mine.Epoch + 1, Since: now}
	}
	for _, mac := range []net.HardwareAddr{{2, 0, 0, 0, 1, 1}, {2, 0, 0, 0, 1, 2}} {
		now = w.now()
		for i := range hops {
			hops[i].Since = now
		}
		w.neighbour(bob[0].AsSlice(), mac)
		if got := w.run(frame, TX, Relayed); !bytes.Equal(got[:6], mac) {
			t.Errorf("sent to %x, want %v", got[:6], mac)
		}
	}
	if left := slices.IndexFunc(hops, func(h datapathHop) bool { return h.Epoch == mine.Epoch }); left >= 0 {
		t.Errorf("place %d was taken", left)
	}
	for i := range hops {
		hops[i].Since = now - 1<<20
	}
	w.run(frame, TX, Relayed)
	taken := slices.IndexFunc(hops, func(h datapathHop) bool { return h.Epoch == mine.Epoch })
	if taken < 0 || hops[taken].Tenant != 3<<32|uint64(w.in.Index) {
		t.Errorf("place %d was taken, want one in its next generation, 3", taken)
	}
}

// placeOf returns the place of the next hop that leg 1 of session 3 refers to.
func (w *wire) placeOf(hops []datapathHop) *datapathHop {
	w.Helper()
	ref := uint16(w.program.relay.legs.at(3, 1).load() >> 32)
	if ref == 0 {
		w.Fatal("the leg has no next hop")
	}
	return &hops[int(ref)%len(hops)]
}

// TestStaleNextHop checks that a leg does not use a next hop whose place another one has got, or is about to
// get.
func TestStaleNextHop(t *testing.T) {
	for what, change := range map[string]func(tenant uint64) uint64{
		"another":    func(tenant uint64) uint64 { return tenant + 2<<32 },
		"about to":   func(tenant uint64) uint64 { return tenant &^ (1<<32 - 1) },
		"none there": func(uint64) uint64 { return 0 },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWire(t)
			w.session(0, bob, relayAB)
			f := w.good(0)
			frame := f.Build(edgeMAC, w.in.HardwareAddr)
			want := w.run(frame, TX, Relayed)
			place := w.placeOf(hopsOf(t, w.program))
			place.Tenant, place.Macs = change(place.Tenant), [3]uint32{1, 2, 3}
			if got := w.run(frame, TX, Relayed); !bytes.Equal(got, want) {
				t.Errorf("sent\n%x\nwant\n%x", got[:14], want[:14])
			}
		})
	}
}

// TestNextHopsApart checks that next hops that differ only in the MTU, which peers can make by ICMP messages,
// do not crowd into the places of one set.
func TestNextHopsApart(t *testing.T) {
	const hosts = 16
	w := newWire(t)
	for i := range uint32(hosts) {
		host := addrs{netip.AddrFrom4([4]byte{10, 1, 0, 100 + byte(i)})}
		w.neighbour(host[0].AsSlice(), peerMAC)
		route := &netlink.Route{
			LinkIndex: w.in.Index, Scope: netlink.SCOPE_LINK, MTU: 1000 + int(i), MTULock: true,
			Dst: &net.IPNet{IP: host[0].AsSlice(), Mask: net.CIDRMask(32, 32)},
		}
		id := w.key.ID(cid.Peer, uint64(i))
		legs := [2]Leg{
			{Remote: alice.at(0, 1000), Local: relayAB.at(0, relayPort)},
			{Remote: host.at(0, 2000), Local: relayAB.at(0, relayPort)},
		}
		err := errors.Join(netlink.RouteAdd(route), w.program.relay.PutSession(i, legs), w.program.relay.SetDue(i, 1, 64),
			w.program.relay.PutRoute(id, Route{Session: i, Leg: 1}))
		if err != nil {
			t.Fatal(err)
		}
		f := w.good(0)
		copy(f.Payload[1:], id.Bytes())
		w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	}
	if n := usedHops(hopsOf(t, w.program)); n != hosts {
		t.Errorf("%d next hops, want %d", n, hosts)
	}
}

// TestEveryPlaceAndGeneration checks that a leg refers to its next hop also if that is in the first place, in
// any generation.
func TestEveryPlaceAndGeneration(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	w.neighbour(bob[0].AsSlice(), w.macOfFirstSet())
	f := w.good(0)
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	hops := hopsOf(t, w.program)
	for generation := range uint64(32) {
		hops[0] = datapathHop{Tenant: generation << 32}
		if generation > 0 {
			hops[0].Tenant |= 1 << 20 // an interface that there is not, long ago
			hops[0].Since = w.now() - 1<<20
		}
		w.session(0, bob, relayAB)
		w.run(frame, TX, Relayed)
		if hops[0].Tenant<<32>>32 != uint64(w.in.Index) {
			t.Fatalf("tenant %#x after generation %d, want the next hop", hops[0].Tenant, generation)
		}
		if state := w.program.relay.legs.at(3, 1).load(); uint16(state>>32) == 0 {
			t.Errorf("state %#x of the leg after generation %d: it has no next hop", state, generation)
		}
	}
}

// macOfFirstSet returns a MAC address of a host behind the first interface whose next hop belongs into the
// first set: keep_hop in bpf/hops.h.
func (w *wire) macOfFirstSet() net.HardwareAddr {
	w.Helper()
	keys := &w.program.relay.routes.keys
	var frame [12]byte
	copy(frame[6:], w.in.HardwareAddr)
	frame[0] = 2
	for i := range uint32(1 << 20) {
		binary.BigEndian.PutUint32(frame[1:], i)
		hash := uint64(w.in.Index)*keys[3] + uint64(w.in.MTU)*keys[4] + uint64(w.program.epoch)*keys[5]
		for word := range 3 {
			hash += uint64(binary.NativeEndian.Uint32(frame[4*word:])) * keys[word]
		}
		if hash>>32&(4096-4) == 0 {
			return slices.Clone(frame[:6])
		}
	}
	w.Fatal("no address belongs into the first set")
	return nil
}

// now returns the time of the kernel in ticks, of which hops have the low bits.
func (w *wire) now() uint32 {
	w.Helper()
	var ticks uint64
	if _, err := w.program.objects.ReadClock.Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil {
		w.Fatal(err)
	}
	if err := w.program.objects.Ticks.Get(&ticks); err != nil {
		w.Fatal(err)
	}
	length, err := tick()
	if err != nil {
		w.Fatal(err)
	}
	return uint32(ticks / length)
}

// TestNextHopFromTheFuture checks that a next hop stays that another CPU has put into the table since this one
// has read the time.
func TestNextHopFromTheFuture(t *testing.T) {
	w := newWire(t)
	w.session(0, bob, relayAB)
	hops := hopsOf(t, w.program)
	since := w.now() + 60
	for i := range hops {
		hops[i] = datapathHop{Tenant: 1<<32 | 1<<20, Since: since}
	}
	f := w.good(0)
	w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	taken := slices.IndexFunc(hops, func(h datapathHop) bool { return h.Tenant != 1<<32|1<<20 })
	if age := int32(w.now() - since); taken >= 0 && age < 1024 { // HOP_STAYS
		t.Errorf("place %d was taken after %d ticks", taken, age)
	}
}

// TestEpochBeforeAttach checks that the program does not use next hops that an earlier one may have left, from
// the moment on in which it replaces that one.
func TestEpochBeforeAttach(t *testing.T) {
	p := mustLoad(t, &Config{Sessions: 1})
	var epoch uint32
	if err := p.objects.Epoch.Get(&epoch); err != nil || epoch != p.epoch {
		t.Errorf("epoch %d, %v, want the random one, %d", epoch, err, p.epoch)
	}
}
