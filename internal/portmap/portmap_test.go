package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

var (
	testGateway  = netip.MustParseAddr("192.168.1.1")
	testLocal    = netip.MustParseAddr("192.168.1.2")
	testExternal = netip.MustParseAddrPort("203.0.113.1:7000")
)

// fake is a protocol that keeps what it is asked.
type fake struct {
	mu     sync.Mutex
	answer Mapping
	err    error
	delay  time.Duration
	asked  []request
}

func (f *fake) ask(ctx context.Context, r request) (Mapping, error) {
	select {
	case <-ctx.Done():
		return Mapping{}, ctx.Err()
	case <-time.After(f.delay):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r)
	return f.answer, f.err
}

func (f *fake) set(m Mapping, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.err = m, err
}

// requests returns how many there were to map and to delete.
func (f *fake) requests() (maps, deletes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.asked {
		if r.lifetime == 0 {
			deletes++
		} else {
			maps++
		}
	}
	return maps, deletes
}

func newMapper(fakes ...*fake) *Mapper {
	conf := &Config{Gateway: func() (netip.Addr, netip.Addr, error) { return testGateway, testLocal, nil }}
	for _, f := range fakes {
		conf.protocols = append(conf.protocols, f.ask)
	}
	return New(1000, conf)
}

func TestFirstAnswerWins(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		slow := &fake{answer: Mapping{testExternal, time.Hour, PCP}, delay: 2 * time.Second}
		bad := &fake{err: errors.New("no")}
		zero := &fake{answer: Mapping{netip.AddrPortFrom(testExternal.Addr(), 0), time.Hour, PCP}}
		fast := &fake{answer: Mapping{testExternal, 1000 * time.Hour, NATPMP}, delay: time.Second}
		m := newMapper(slow, bad, zero, fast)
		got, err := m.Map(t.Context())
		if want := (Mapping{testExternal, time.Hour, NATPMP}); err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		<-m.Changes()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if maps, deletes := fast.requests(); maps != 1 || deletes != 1 {
			t.Errorf("the winner: got %d and %d requests, want 1 and 1", maps, deletes)
		}
		if maps, deletes := slow.requests(); maps != 0 || deletes != 0 {
			t.Errorf("the loser: got %d and %d requests, want none", maps, deletes)
		}
		if _, err := m.Map(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestRenewal(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		f := &fake{answer: Mapping{testExternal, time.Hour, PCP}}
		m := newMapper(f)
		defer m.Close()
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if maps, _ := f.requests(); maps != 2 {
			t.Errorf("before half of the lifetime: got %d requests, want 2", maps)
		}
		if r := f.asked[1]; r.external != testExternal || r.nonce != f.asked[0].nonce {
			t.Errorf("the renewal asks for %v", r)
		}
		<-m.Changes()
		select {
		case <-m.Changes():
			t.Error("a renewal is a change")
		default:
		}
		f.set(Mapping{}, errors.New("busy"))
		m.Refresh()
		time.Sleep(10 * time.Minute)
		if got, ok := m.Mapping(); !ok || got.External != testExternal {
			t.Errorf("what has not expired is forgotten: got %v, %v", got, ok)
		}
		moved := netip.MustParseAddrPort("203.0.113.9:7000")
		f.set(Mapping{moved, time.Second, PCP}, nil)
		m.Refresh()
		<-m.Changes()
		if got, _ := m.Mapping(); got.External != moved {
			t.Errorf("got %v, want %v", got.External, moved)
		}
		before, _ := f.requests()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if now, _ := f.requests(); now-before > 10 {
			t.Errorf("a lifetime of a second makes %d requests in 40", now-before)
		}
		f.set(Mapping{}, errors.New("no"))
		<-m.Changes()
		if got, ok := m.Mapping(); ok {
			t.Errorf("got %v, want none", got)
		}
	})
}

func TestNone(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		silent := &fake{delay: time.Hour}
		m := newMapper(silent)
		start := time.Now()
		if _, err := m.Map(t.Context()); !errors.Is(err, ErrNone) {
			t.Errorf("got %v, want %v", err, ErrNone)
		}
		if took := time.Since(start); took != defaultTimeout {
			t.Errorf("it took %v, want %v", took, defaultTimeout)
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := <-m.Changes(); ok {
			t.Error("a change after Close")
		}
	})
}

func TestPrivate(t *testing.T) {
	for addr, want := range map[string]bool{
		"203.0.113.1:1": false, "192.168.0.1:1": true, "10.0.0.1:1": true, "100.64.3.1:1": true, "100.128.0.1:1": false, "169.254.0.1:1": true,
	} {
		if got := (Mapping{External: netip.MustParseAddrPort(addr)}).Private(); got != want {
			t.Errorf("%v: got %v, want %v", addr, got, want)
		}
	}
}
