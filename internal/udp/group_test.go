package udp

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// groups are the ways to read the members of a group.
var groups = map[string]func() (*Group, error){
	"system": NewGroup,
	"plain": func() (*Group, error) {
		g := &Group{}
		g.engine = newPlainGroup(g)
		return g, nil
	},
}

// forGroups runs a test with each kind of group. The handler sends what it gets, with a copy
// of the data, to the channel.
func forGroups(t *testing.T, test func(t *testing.T, g *Group, got <-chan Received)) {
	for name, make := range groups {
		t.Run(name, func(t *testing.T) {
			g, err := make()
			if err != nil {
				t.Fatal(err)
			}
			testGroup(t, g, test)
		})
	}
}

func testGroup(t *testing.T, g *Group, test func(t *testing.T, g *Group, got <-chan Received)) {
	got := make(chan Received, 10000)
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Run(func(batch []Received) {
			for _, r := range batch {
				for data := range r.Message.Segments() {
					r := r
					r.Message.Data = bytes.Clone(data)
					got <- r
				}
			}
		}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
	test(t, g, got)
	if err := errors.Join(g.Close(), g.Close()); err != nil {
		t.Error(err)
	}
	running.Wait()
	if _, err := g.Dial(listen(t, "udp", "127.0.0.1:0", nil).LocalAddr(), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: %v", err)
	}
}

func next(t *testing.T, got <-chan Received) Received {
	t.Helper()
	select {
	case r := <-got:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was received")
		return Received{}
	}
}

// TestGroup checks that each member sends from an address of its own, and that what comes
// back has its owner.
func TestGroup(t *testing.T) {
	forGroups(t, func(t *testing.T, g *Group, got <-chan Received) {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			peer := listen(t, "udp", address, nil)
			for i := range 100 {
				m, err := g.Dial(peer.LocalAddr(), i)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.WriteBatch([]Message{{Data: []byte{1, 2, 3, 4, 5}, SegmentSize: 2}}); err != nil {
					t.Fatal(err)
				}
				for _, in := range receive(t, peer, 3) {
					if in.Remote != m.LocalAddr() || m.RemoteAddr() != peer.LocalAddr() {
						t.Fatalf("got %v from %v, want %v", in.Data, in.Remote, m.LocalAddr())
					}
				}
				if err := peer.Write(&Message{Data: []byte("answer"), Remote: m.LocalAddr()}); err != nil {
					t.Fatal(err)
				}
				r := next(t, got)
				if r.Owner != i || r.Member != m || string(r.Message.Data) != "answer" || r.Message.Remote != peer.LocalAddr() {
					t.Fatalf("member %d got %+v", i, r)
				}
				if i%2 == 0 { // so that places are used again
					m.Close()
					m.Close()
					if err := m.WriteBatch([]Message{{Data: []byte{1}}}); !errors.Is(err, net.ErrClosed) {
						t.Fatalf("WriteBatch after Close: %v", err)
					}
				}
			}
		}
		if s := g.Stats(); s.RxPackets != 200 || s.TxPackets != 600 {
			t.Errorf("got %+v", s)
		}
	})
}

// TestGroupRefused checks that the error of a member whose peer is gone gets to its owner, and
// that the other members go on.
func TestGroupRefused(t *testing.T) {
	forGroups(t, func(t *testing.T, g *Group, got <-chan Received) {
		gone, peer := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		m, err := g.Dial(gone.LocalAddr(), "gone")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.WriteBatch([]Message{{Data: []byte{1}}}); err != nil {
			t.Fatal(err)
		}
		if r := next(t, got); r.Owner != "gone" || !errors.Is(r.Err, syscall.ECONNREFUSED) {
			t.Fatalf("got %+v", r)
		}
		other, err := g.Dial(peer.LocalAddr(), "other")
		if err != nil {
			t.Fatal(err)
		}
		if err := peer.Write(&Message{Data: []byte("x"), Remote: other.LocalAddr()}); err != nil {
			t.Fatal(err)
		}
		if r := next(t, got); r.Owner != "other" || r.Err != nil {
			t.Fatalf("got %+v", r)
		}
	})
}

// TestGroupConcurrent checks that members may be opened, written to and closed by several
// goroutines while the loop reads: no datagram gets to another member's owner.
func TestGroupConcurrent(t *testing.T) {
	forGroups(t, func(t *testing.T, g *Group, got <-chan Received) {
		peer := listen(t, "udp", "127.0.0.1:0", nil)
		var echoing, all sync.WaitGroup
		echoing.Go(func() {
			ms := make([]Message, 16)
			for {
				n, err := peer.ReadBatch(ms)
				if err != nil {
					return
				}
				_ = peer.WriteBatch(ms[:n]) // members may be gone
			}
		})
		for i := range byte(4) {
			all.Go(func() {
				for range 100 {
					m, err := g.Dial(peer.LocalAddr(), i)
					if err != nil {
						t.Error(err)
						return
					}
					if err := m.WriteBatch([]Message{{Data: []byte{i}}}); err != nil {
						t.Error(err)
					}
					m.Close()
				}
			})
		}
		all.Wait()
		peer.Close()
		echoing.Wait()
		for len(got) > 0 {
			if r := <-got; r.Err == nil && r.Message.Data[0] != r.Owner {
				t.Fatalf("got %+v", r)
			}
		}
	})
}

// TestGroupWithoutRun checks that a group that never runs can be closed.
func TestGroupWithoutRun(t *testing.T) {
	for name, make := range groups {
		g, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Dial(listen(t, "udp", "127.0.0.1:0", nil).LocalAddr(), nil); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
