package datapath

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/livetest"
)

// benchTurn is how long BenchmarkRelayIDs runs a program before it measures it for as long. Of each
// session there must be a packet within the time that a next hop is cached.
const benchTurn = 400 * time.Millisecond

// BenchmarkRelayIDs measures the time for a packet with a random one of so many IDs in use, ten of each
// session, of a table with 1 048 576 IDs: the median, net of that of a floor that is measured in turn, a
// program that chooses the ID, and sends the packet back.
func BenchmarkRelayIDs(b *testing.B) {
	const sessions, perSession = 1<<20/10 + 1, 10
	w := newWireFor(b, &Config{Sessions: sessions, IDs: sessions*perSession + 64})
	w.loopSession(0)
	f := w.good(0)
	f.Src, f.Dst, f.TTL = bob.at(0, 2000), bob.at(0, 2000), 255
	frame := f.Build(edgeMAC, w.in.HardwareAddr)
	at := bytes.Index(frame, f.Payload) + 1
	ids, floor := w.randomIDs(0, perSession), loadTX(b)
	b.ResetTimer()
	for _, count := range []struct {
		name string
		ids  int32
	}{{"1", 1}, {"4Ki", 1 << 12}, {"128Ki", 1 << 17}, {"1Mi", 1 << 20}} {
		runs := [2]*benchedProgram{}
		for i, then := range []*ebpf.Program{floor, w.program.objects.Quicway} {
			runs[i] = &benchedProgram{prog: w.withRandomID(ids, at, 1, count.ids, then)}
			runs[i].detach = attachTo(b, runs[i].prog, []string{"in0p", "out0p"}[i])
		}
		for range b.N {
			for _, run := range runs {
				run.turn(w, frame)
			}
		}
		b.ReportMetric(runs[1].median()-runs[0].median(), "ns-net/ids="+count.name)
		for _, run := range runs {
			if err := run.detach(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// benchedProgram is a program that is measured in turn with others.
type benchedProgram struct {
	prog   *ebpf.Program
	detach func() error
	calls  []float64 // ns for a packet, of each call
}

// turn runs the program for a while, and then measures each call for a while.
func (p *benchedProgram) turn(w *wire, frame []byte) {
	w.Helper()
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: testContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(w.in.Index)},
		Repeat:  benchRepeat,
	}
	begin := time.Now()
	for now := begin; now.Sub(begin) < 2*benchTurn; {
		opts.DataOut = opts.DataOut[:cap(opts.DataOut)]
		verdict, err := p.prog.Run(&opts)
		took := time.Since(now)
		now = now.Add(took)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || Verdict(verdict) != TX:
			w.Fatalf("verdict %d, %v; want %d", verdict, err, TX)
		case now.Sub(begin) > benchTurn:
			p.calls = append(p.calls, float64(took.Nanoseconds())/benchRepeat)
		}
	}
}

func (p *benchedProgram) median() float64 {
	slices.Sort(p.calls)
	return p.calls[len(p.calls)/2]
}

// BenchmarkRoutePut measures what one step of a window costs Go: an ID is put, and deleted, beside
// 1 048 576 others; in the table of routes, and in a map of the kernel that is a hash table.
func BenchmarkRoutePut(b *testing.B) {
	const others = 1 << 20
	known, fresh := cid.NewKey().Deriver(cid.Peer), cid.NewKey().Deriver(cid.Peer)
	steps := make([]cid.ID, 1<<16)
	for i := range steps {
		steps[i] = fresh.ID(uint64(i))
	}
	b.Run("table", func(b *testing.B) {
		relay := &mustLoad(b, &Config{Sessions: 16, IDs: others}).relay
		for i := range uint64(others) {
			if err := relay.PutRoute(known.ID(i), Route{Session: 5}); err != nil {
				b.Fatal(err)
			}
		}
		benchCPU(b, func(i int) error {
			id := steps[i%len(steps)]
			return errors.Join(relay.PutRoute(id, Route{}), relay.DeleteRoute(id, Route{}))
		})
	})
	b.Run("hash", func(b *testing.B) {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: cid.Len, ValueSize: 8, MaxEntries: others + 1, Flags: unix.BPF_F_NO_PREALLOC})
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		for i := range uint64(others) {
			if err := m.Put(idKey(known.ID(i)), uint64(i)); err != nil {
				b.Fatal(err)
			}
		}
		benchCPU(b, func(i int) error {
			key := idKey(steps[i%len(steps)])
			return errors.Join(m.Put(key, uint64(i)), m.Delete(key))
		})
	})
}

// benchCPU measures the CPU time of steps, which other processes disturb less than the time.
func benchCPU(b *testing.B, step func(i int) error) {
	b.Helper()
	before := livetest.ProcessTime(b, os.Getpid())
	b.ResetTimer()
	for i := range b.N {
		if err := step(i); err != nil {
			b.Fatal(err)
		}
	}
	spent := livetest.ProcessTime(b, os.Getpid()) - before
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/op")
}
