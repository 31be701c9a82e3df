package sni

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/splice"
)

// fakeKernel is a kernel path without a kernel: a pair copies the bytes itself, after the copy
// loops have ended.
type fakeKernel struct {
	refuse func() error                    // asked for each takeover; nil: none is refused
	block  func(ctx context.Context) error // called in each takeover; may be nil
	left   []adoptedPair
	pin    bool

	mu       sync.Mutex // guards the following
	injected []uint64   // of all takeovers
	closed   int
}

func (k *fakeKernel) take(ctx context.Context, client, upstream *net.TCPConn, injected uint64) (kernelPair, error) {
	k.mu.Lock()
	k.injected = append(k.injected, injected)
	k.mu.Unlock()
	if k.refuse != nil {
		if err := k.refuse(); err != nil {
			return nil, err
		}
	}
	if k.block != nil {
		if err := k.block(ctx); err != nil {
			return nil, err
		}
	}
	return newFakePair(client, upstream), nil
}

func (k *fakeKernel) adopted() iter.Seq[adoptedPair] { return slices.Values(k.left) }

func (k *fakeKernel) pinned() bool { return k.pin }

func (k *fakeKernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed++
	return nil
}

// fakePair is a connection that a fakeKernel has taken.
type fakePair struct {
	client, upstream *net.TCPConn
	start            sync.Once
	asked            chan splice.Reason
	ended            chan struct{}
	refuseBack       atomic.Bool
	n                [2]atomic.Uint64 // bytes from the client and from the upstream
	again            atomic.Uint64    // bytes that came again

	mu      sync.Mutex // guards the following
	how     pairEnd
	stopped bool // the copying
	over    bool
	copying sync.WaitGroup
}

func newFakePair(client, upstream *net.TCPConn) *fakePair {
	return &fakePair{client: client, upstream: upstream, asked: make(chan splice.Reason, 1), ended: make(chan struct{})}
}

func (p *fakePair) done() <-chan struct{} {
	p.start.Do(p.copyBoth)
	return p.ended
}

func (p *fakePair) copyBoth() {
	_ = p.client.SetReadDeadline(time.Time{})
	_ = p.upstream.SetReadDeadline(time.Time{})
	p.copying.Go(func() { p.copy(p.upstream, p.client, &p.n[0]) })
	p.copying.Go(func() { p.copy(p.client, p.upstream, &p.n[1]) })
	go func() {
		p.copying.Wait()
		p.finish(endFinished)
	}()
}

func (p *fakePair) copy(dst, src *net.TCPConn, n *atomic.Uint64) {
	b := make([]byte, 64<<10)
	for {
		got, err := src.Read(b)
		if got > 0 {
			n.Add(uint64(got)) // before the other end has them
			_, err = dst.Write(b[:got])
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = dst.CloseWrite()
			return
		default:
			p.finish(endReset)
			return
		}
	}
}

// finish ends the pair, unless it has ended, or its copying is stopped.
func (p *fakePair) finish(how pairEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.stopped && how != endBack {
		return
	}
	p.how, p.over = how, true
	switch how {
	case endFinished:
		p.client.Close()
		p.upstream.Close()
	case endReset, endLost:
		reset(p.client)
		reset(p.upstream)
	}
	close(p.ended)
}

func (p *fakePair) end() pairEnd {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how
}

func (p *fakePair) traffic() traffic {
	side := func(i int) sideTraffic { return sideTraffic{p.n[i].Load(), p.n[i].Load(), 0} }
	t := traffic{side(0), side(1)}
	t.fromClient.again = p.again.Load()
	t.fromClient.sent += t.fromClient.again
	return t
}

func (p *fakePair) wants() <-chan splice.Reason { return p.asked }

var errFakeBack = errors.New("no way back")

func (p *fakePair) back(context.Context) (client, upstream *net.TCPConn, err error) {
	if p.refuseBack.Load() {
		return nil, nil, errFakeBack
	}
	p.mu.Lock()
	over := p.over
	p.stopped = true
	p.mu.Unlock()
	if over {
		return nil, nil, errFakeBack
	}
	_ = p.client.SetReadDeadline(longAgo)
	_ = p.upstream.SetReadDeadline(longAgo)
	p.copying.Wait()
	_ = p.client.SetReadDeadline(time.Time{})
	_ = p.upstream.SetReadDeadline(time.Time{})
	p.finish(endBack)
	return p.client, p.upstream, nil
}

func (p *fakePair) abort() error {
	p.finish(endReset)
	return nil
}

// newSplicing runs a server on loopback that has a fake kernel, until the test ends, and
// checks then that the kernel was closed once, and that nothing is left in it.
func newSplicing(t *testing.T, cfg *Config, kernel *fakeKernel) *Server {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Splice == nil {
		cfg.Splice = &Splice{}
	}
	cfg.Splice.Interfaces = []string{loopback(t)}
	s, err := newWithKernel(cfg, l, nil, func(*Splice, *slog.Logger) (kernelPath, error) { return kernel, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if kernel.closed != 1 {
			t.Errorf("the kernel was closed %d times", kernel.closed)
		}
		if st := s.Stats().Splice; st.InKernel != 0 || len(s.splicer.offered) > 0 || len(s.splicer.places) > 0 {
			t.Errorf("after Close: %+v, %d offered, %d places", st, len(s.splicer.offered), len(s.splicer.places))
		}
	})
	runServer(t, s)
	return s
}

// loopback returns the name of the loopback interface.
func loopback(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 })
	if i < 0 {
		t.Fatal("there is no loopback interface")
	}
	return all[i].Name
}
