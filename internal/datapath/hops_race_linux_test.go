package datapath

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestNextHopRace checks that no frame has parts of two MAC addresses while the place of its next hop changes
// hands, as another CPU would do it, and all tenants look the same to the leg; and that the leg only refers to
// its own next hop if it can tell them apart.
func TestNextHopRace(t *testing.T) {
	t.Run("same generation", func(t *testing.T) { testNextHopRace(t, 16, 2) })
	t.Run("other generations", func(t *testing.T) { testNextHopRace(t, 2, 1) })
}

// testNextHopRace alternates between two next hops, of which the first one is the leg's. Each has a generation
// that is so many more than the one before. Frames may go to so many of them.
func testNextHopRace(t *testing.T, generations uint64, allowed int) {
	const frames = 20_000
	w := newWire(t)
	w.session(0, bob, relayAB)
	f := w.good(0)
	r := relayed(f, bob, relayAB)
	want := [][]byte{
		r.Build(w.in.HardwareAddr, peerMAC),
		r.Build(w.in.HardwareAddr, net.HardwareAddr{2, 0x55, 0x55, 0x55, 0x55, 0x55}),
	}
	w.run(f.Build(edgeMAC, w.in.HardwareAddr), TX, Relayed)
	hops := hopsOf(t, w.program)
	place := w.placeOf(hops)
	for i := range hops {
		if &hops[i] != place {
			hops[i].Tenant = 1 << 32 // somebody else is about to get it
		}
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	var done atomic.Bool
	var running sync.WaitGroup
	for cpu := range min(2, runtime.NumCPU()) {
		running.Go(func() { w.runOn(here, cpu, frames, &f, want[:allowed]); done.Store(true) })
	}
	for i := 1; !done.Load(); i++ {
		if i%1000 == 1 {
			atomic.StoreUint32(&place.Since, w.now())
		}
		place.change(want[i%2], generations)
	}
	running.Wait()
}

// change gives a place to the next hop that a frame goes to: claim and keep_hop in bpf/hops.h.
func (h *datapathHop) change(frame []byte, generations uint64) {
	tenant := h.Tenant
	atomic.StoreUint64(&h.Tenant, (tenant>>32+1)<<32)
	for i := range h.Macs {
		atomic.StoreUint32(&h.Macs[i], binary.NativeEndian.Uint32(frame[4*i:]))
	}
	atomic.StoreUint64(&h.Tenant, tenant+generations<<32)
}
