package sni

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/splice"
	"github.com/quicway/quicway/internal/splice/sockmap"
)

// openSockmap opens the kernel path of the method Sockmap.
func openSockmap(conf *Splice) (kernelPath, error) {
	program, err := sockmap.Load(conf.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKernel, err)
	}
	return &sockmapPath{program}, nil
}

// sockmapPath relays connections with package sockmap, which wants sockets that nobody reads.
// So a takeover only lets the copy loops end.
type sockmapPath struct{ program *sockmap.Program }

func (k *sockmapPath) take(ctx context.Context, client, upstream *net.TCPConn, _ uint64) (kernelPair, error) {
	return &sockmapPair{
		program: k.program, client: client, upstream: upstream, asked: make(chan splice.Reason, 1), never: make(chan struct{}),
		// A copy loop may wait for a reader that does not read.
		keep: context.AfterFunc(ctx, func() { reset(client); reset(upstream) }),
	}, nil
}

func (k *sockmapPath) adopted() iter.Seq[adoptedPair] { return func(func(adoptedPair) bool) {} }

func (k *sockmapPath) pinned() bool { return false }

func (k *sockmapPath) close() error { return k.program.Close() }

// sockmapPair is a connection that package sockmap relays from the first call of done: the
// copy loops have ended then. If the package refuses it, it asks for the way back.
type sockmapPair struct {
	program          *sockmap.Program
	client, upstream *net.TCPConn
	keep             func() bool // from now on the end of the takeover's context does not reset the sockets
	start            sync.Once
	pair             atomic.Pointer[sockmap.Pair] // nil: before start, or refused
	asked            chan splice.Reason
	never            chan struct{} // what done returns then
}

func (p *sockmapPair) done() <-chan struct{} {
	p.start.Do(p.begin)
	if pair := p.pair.Load(); pair != nil {
		return pair.Done()
	}
	return p.never
}

func (p *sockmapPair) begin() {
	p.keep()
	err := errors.Join(p.client.SetReadDeadline(time.Time{}), p.upstream.SetReadDeadline(time.Time{}))
	if err == nil {
		var pair *sockmap.Pair
		if pair, err = p.program.Take(p.client, p.upstream); err == nil {
			p.pair.Store(pair)
			return
		}
	}
	switch {
	case errors.Is(err, sockmap.ErrFull):
		p.asked <- splice.RefusedFull
	case errors.Is(err, sockmap.ErrNotQuiet):
		p.asked <- splice.RefusedBusy
	default:
		p.asked <- splice.RefusedState
	}
}

func (p *sockmapPair) end() pairEnd {
	if pair := p.pair.Load(); pair != nil && pair.End() == sockmap.Finished {
		return endFinished
	}
	return endReset
}

// traffic makes system calls while the kernel relays.
func (p *sockmapPair) traffic() traffic {
	pair := p.pair.Load()
	if pair == nil {
		return traffic{}
	}
	client, upstream := pair.Traffic()
	return traffic{
		sideTraffic{bytes: client.Bytes, sent: client.Bytes}, sideTraffic{bytes: upstream.Bytes, sent: upstream.Bytes},
	}
}

func (p *sockmapPair) wants() <-chan splice.Reason { return p.asked }

var errStays = errors.New("there is no way back from a sockmap")

// back returns the sockets if the package has refused them.
func (p *sockmapPair) back(context.Context) (client, upstream *net.TCPConn, err error) {
	if p.pair.Load() != nil {
		return nil, nil, errStays
	}
	return p.client, p.upstream, nil
}

func (p *sockmapPair) abort() error {
	if pair := p.pair.Load(); pair != nil {
		pair.Abort()
		return nil
	}
	reset(p.client)
	reset(p.upstream)
	return nil
}
