package datapath

import (
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/packet"
)

// TestConcurrentChanges checks that a frame is relayed to the old or the new address of a leg,
// with the MAC address that belongs to it, while Go changes the leg and another CPU caches its
// next hop. The program for processors that reorder loads does the same.
func TestConcurrentChanges(t *testing.T) {
	const frames = 100_000
	for i, name := range []string{"IPv4", "IPv6", "IPv4/reorders", "IPv6/reorders"} {
		t.Run(name, func(t *testing.T) {
			family := i % 2
			w := newWireFor(t, &Config{Sessions: 16, reorders: i >= 2})
			w.session(family, bob, relayAB)
			remotes := []addrs{alice, bob}
			macs := []net.HardwareAddr{{2, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa}, {2, 0x55, 0x55, 0x55, 0x55, 0x55}}
			ports := []uint16{0x1111, 0x2222}
			var want [][]byte
			f := w.good(family)
			for i, at := range remotes {
				w.neighbour(at[family].AsSlice(), macs[i])
				r := relayed(f, at, relayAB)
				r.Dst = at.at(family, ports[i])
				want = append(want, r.Build(w.in.HardwareAddr, macs[i]))
			}
			here, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				t.Fatal(err)
			}
			defer here.Close()
			put := func(i int) {
				legs := [2]Leg{
					{Remote: alice.at(family, 1000), Local: relayAB.at(family, relayPort)},
					{Remote: remotes[i].at(family, ports[i]), Local: relayAB.at(family, relayPort)},
				}
				if err := w.program.relay.PutSession(3, legs); err != nil {
					t.Error(err)
				}
			}
			put(0)
			var done atomic.Bool
			var running sync.WaitGroup
			for cpu := range min(2, runtime.NumCPU()) {
				running.Go(func() { w.runOn(here, cpu, frames, &f, want); done.Store(true) })
			}
			for i := 0; !done.Load(); i++ {
				put(i % 2)
			}
			running.Wait()
		})
	}
}

// neighbour sets the MAC address of an IP address of the first network.
func (w *wire) neighbour(ip net.IP, mac net.HardwareAddr) {
	w.Helper()
	n := &netlink.Neigh{LinkIndex: w.in.Index, IP: ip, HardwareAddr: mac, State: netlink.NUD_PERMANENT}
	if err := netlink.NeighSet(n); err != nil {
		w.Fatal(err)
	}
}

// runOn runs the program on a frame in a namespace on one CPU. The frame must be passed, or become
// one of several frames.
func (w *wire) runOn(namespace *os.File, cpu, frames int, f *packet.Frame, want [][]byte) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(cpu)
	if err := errors.Join(unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET), unix.SchedSetaffinity(0, &set)); err != nil {
		w.Error(err)
		return
	}
	in := f.Build(edgeMAC, w.in.HardwareAddr)
	forwarded := 0
	for range frames {
		verdict, out, err := w.program.Test(w.in.Index, in)
		if err != nil {
			w.Error(err)
			return
		}
		if verdict == Pass && bytes.Equal(out, in) {
			continue
		}
		forwarded++
		good := false
		for _, b := range want {
			good = good || bytes.Equal(b, out)
		}
		if verdict != TX || !good {
			w.Errorf("verdict %d after %d frames:\ngot  %x\nwant %x", verdict, forwarded, out[:60], want[0][:60])
			return
		}
	}
	if forwarded == 0 {
		w.Error("no frame was forwarded")
	}
}
