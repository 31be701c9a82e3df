package splice

import (
	"sync"
	"testing"

	"github.com/cilium/ebpf"
)

// TestTwoCPUs checks that all packets are counted when several CPUs handle those of one direction. The
// pair leads to itself, so a test run can be repeated: each run gets the packet that the run before
// has made, with a later sequence number.
func TestTwoCPUs(t *testing.T) {
	const workers, frames, repeat, step = 4, 200, 250, 4
	r := newRig(t)
	pair := loop(0)
	c, u := &pair.Halves[fromClient], &pair.Halves[fromUpstream]
	c.SeqAdd, u.MaxEdge = step, c.MaxEnd+1<<30
	u.MaxAck = c.MaxEnd + step
	kernel := &r.program.pairs.pairs[0]
	*kernel = pair
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range frames {
				s := newSegment(0, fromClient)
				s.ttl, s.payload = 255, []byte("four")
				s.seq += uint32(step * repeat * (workers*i + worker))
				opts := &ebpf.RunOptions{Data: s.build(), Repeat: repeat}
				if _, err := r.program.objects.SpliceIngress.Run(opts); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// A test run that a signal interrupts begins anew, so there may be more packets. The counters,
	// of which each CPU has its own, know how many there were.
	packets := r.counted()[Forwarded]
	h := kernel.Halves[fromClient]
	want := c.MaxEnd + workers*frames*repeat*step
	if packets < workers*frames*repeat || h.Packets != packets || h.Bytes != 4*packets || h.MaxEnd != want {
		t.Errorf("%d packets, %d bytes, end %d; want %d, %d, %d", h.Packets, h.Bytes, h.MaxEnd, packets, 4*packets, want)
	}
}

// loop returns a pair that makes of a packet of the client a packet of the client, with the same
// numbers.
func loop(family int) splicePair {
	pair := pairIn(family, active)
	c, u := &pair.Halves[fromClient], &pair.Halves[fromUpstream]
	c.setAddrs(clients[family], listeners[family])
	u.setAddrs(listeners[family], clients[family])
	c.SeqAdd, u.SeqAdd, c.TsAdd, u.TsAdd = 0, 0, 0, 0
	c.InScale, c.OutScale = 7, 7
	u.MaxEnd, u.MaxAck, u.MaxEdge = 70000, 20000, 20000+1<<20
	return pair
}
