package datapath

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
)

// routeRace looks up IDs on several CPUs while Go moves them, and puts and deletes others.
type routeRace struct {
	*wire
	ids         []cid.ID // of which the n-th leads to session n
	frames      [][2][]byte
	right, toGo atomic.Uint64 // look-ups: forwarded to the session of the ID, or passed
	wrong       atomic.Uint64 // anything else
	moves, puts atomic.Uint64
}

// newRouteRace adds the IDs, and fills the table up to a sixteenth, so that most puts move a route.
func newRouteRace(tb testing.TB) *routeRace {
	tb.Helper()
	r := &routeRace{wire: manyWire(tb, &Config{Sessions: 64, IDs: 160})}
	for session := range uint32(32) {
		id := r.key.ID(cid.Peer, uint64(session))
		in, out := r.wire.frames(id, session)
		r.ids, r.frames = append(r.ids, id), append(r.frames, [2][]byte{in, out})
		if err := r.program.relay.PutRoute(id, Route{Session: session, Leg: 1}); err != nil {
			tb.Fatal(err)
		}
	}
	return r
}

// run does so many look-ups on each of two CPUs.
func (r *routeRace) run(lookups int) {
	r.Helper()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		r.Fatal(err)
	}
	defer here.Close()
	var done atomic.Bool
	var writer, readers sync.WaitGroup
	writer.Go(func() { r.write(&done) })
	for cpu := range min(2, runtime.NumCPU()) {
		readers.Go(func() { r.lookUp(here, cpu, lookups) })
	}
	readers.Wait()
	done.Store(true)
	writer.Wait()
}

// lookUp gives frames to the program, on one CPU.
func (r *routeRace) lookUp(namespace *os.File, cpu, lookups int) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(cpu)
	if err := errors.Join(unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET), unix.SchedSetaffinity(0, &set)); err != nil {
		r.Error(err)
		return
	}
	for range lookups {
		f := r.frames[rand.IntN(len(r.frames))]
		verdict, out, err := r.program.Test(r.in.Index, f[0])
		switch {
		case err != nil:
			r.Error(err)
			return
		case verdict == Pass && bytes.Equal(out, f[0]):
			r.toGo.Add(1)
		case verdict == TX && bytes.Equal(out, f[1]):
			r.right.Add(1)
		default:
			r.wrong.Add(1)
		}
	}
}

// write moves the IDs to their other sets and back, and puts and deletes other IDs.
func (r *routeRace) write(done *atomic.Bool) {
	other := cid.NewKey().Deriver(cid.Peer)
	room := len(r.program.relay.routes.sets)*routeSlots - len(r.ids)
	kept := room - room/16
	where := func(i uint64) Route { return Route{Session: 32 + uint32(i%32), Leg: 1, Counter: i} }
	var have []uint64
	for i := uint64(0); !done.Load(); i++ {
		if len(have) > kept {
			at := rand.IntN(len(have))
			if err := r.program.relay.DeleteRoute(other.ID(have[at]), where(have[at])); err != nil {
				r.Error(err)
				return
			}
			have[at] = have[len(have)-1]
			have = have[:len(have)-1]
		}
		if r.program.relay.PutRoute(other.ID(i), where(i)) == nil {
			have = append(have, i)
			r.puts.Add(1)
		}
		r.move(r.ids[rand.IntN(len(r.ids))])
	}
}

// move moves the route of an ID to its other set, if there is room.
func (r *routeRace) move(id cid.ID) {
	r.program.mu.Lock()
	defer r.program.mu.Unlock()
	t := &r.program.relay.routes
	p := t.place(id)
	from := t.find(p)
	to := p.first
	if t.inSet(p.first, p.tag) {
		to = p.second
	}
	if s := t.free(to); s != nil {
		atomic.StoreUint64(s, *from)
		atomic.StoreUint64(from, 0)
		r.moves.Add(1)
	}
}

// TestRouteRace checks that a packet goes to its own session, or to Go, while the table of routes
// changes.
func TestRouteRace(t *testing.T) {
	r := newRouteRace(t)
	r.run(50_000)
	t.Logf("%d right, %d to Go, %d wrong; %d moves, %d puts", r.right.Load(), r.toGo.Load(), r.wrong.Load(), r.moves.Load(), r.puts.Load())
	if r.wrong.Load() != 0 || r.right.Load() < r.toGo.Load() || r.moves.Load() == 0 || r.puts.Load() == 0 {
		t.Errorf("want none wrong, most right, and some moves and puts")
	}
	for session, id := range r.ids {
		r.leads(id, uint32(session))
	}
}

// BenchmarkRouteRace counts what TestRouteRace does.
func BenchmarkRouteRace(b *testing.B) {
	r := newRouteRace(b)
	b.ResetTimer()
	r.run(b.N)
	for name, n := range map[string]*atomic.Uint64{"right": &r.right, "to-Go": &r.toGo, "wrong": &r.wrong, "moves": &r.moves, "puts": &r.puts} {
		b.ReportMetric(float64(n.Load()), name)
	}
}
