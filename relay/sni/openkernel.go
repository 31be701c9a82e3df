package sni

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"time"

	"github.com/quicway/quicway/internal/splice"
)

// closeTime is the time in which the kernel path has to close.
const closeTime = 10 * time.Second

// openKernel opens the kernel path of a configuration.
func openKernel(conf *Splice, log *slog.Logger) (kernelPath, error) {
	if conf.Method == Sockmap {
		return openSockmap(conf)
	}
	program, err := splice.Load(&splice.Config{MaxPairs: conf.MaxConnections, Pin: conf.Pin, Logger: log})
	if err != nil {
		return nil, explainKernel(err)
	}
	k := &tcxPath{program}
	for _, name := range conf.Interfaces {
		if err := program.Attach(name); err != nil {
			return nil, errors.Join(explainKernel(err), k.close())
		}
	}
	return k, nil
}

// explainKernel wraps an error in ErrConfig, or in errNoKernel.
func explainKernel(err error) error {
	switch {
	case errors.Is(err, splice.ErrConfig):
		return fmt.Errorf("%w: Splice: %w", ErrConfig, err)
	case errors.Is(err, splice.ErrPermission), errors.Is(err, splice.ErrUnsupported), errors.Is(err, splice.ErrBusy):
		return fmt.Errorf("%w: %w", errNoKernel, err)
	}
	var missing *net.OpError
	if errors.As(err, &missing) { // there is no interface of that name
		return fmt.Errorf("%w: Splice.Interfaces: %w", ErrConfig, err)
	}
	return fmt.Errorf("%w: %w", errNoKernel, err)
}

// tcxPath relays connections with the programs of package splice.
type tcxPath struct{ program *splice.Program }

func (k *tcxPath) take(ctx context.Context, client, upstream *net.TCPConn, injected uint64) (kernelPair, error) {
	pair, err := k.program.Take(ctx, client, upstream, injected)
	if err != nil {
		return nil, refusedBy(err)
	}
	return tcxPair{pair}, nil
}

// refusedBy returns why the kernel has not taken a connection.
func refusedBy(err error) *notTaken {
	var refusal *splice.Refusal
	if !errors.As(err, &refusal) {
		return &notTaken{reasonOther, false, err}
	}
	switch refusal.Reason {
	case splice.RefusedBusy, splice.RefusedFull, splice.RefusedNeighbor, splice.RefusedInterface, splice.RefusedCanceled:
		return &notTaken{refusal.Reason.String(), false, err} // that may change
	}
	return &notTaken{refusal.Reason.String(), true, err}
}

func (k *tcxPath) adopted() iter.Seq[adoptedPair] {
	return func(yield func(adoptedPair) bool) {
		for pair := range k.program.Pairs() {
			client, _ := pair.Client()
			upstream, _ := pair.Upstream()
			if !yield(adoptedPair{tcxPair{pair}, client, upstream}) {
				return
			}
		}
	}
}

func (k *tcxPath) pinned() bool { return k.program.Pinned() }

func (k *tcxPath) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return k.program.Close(ctx)
}

// tcxPair is a connection that package splice relays.
type tcxPair struct{ pair *splice.Pair }

func (p tcxPair) done() <-chan struct{} { return p.pair.Done() }

func (p tcxPair) end() pairEnd {
	switch p.pair.End() {
	case splice.Finished:
		return endFinished
	case splice.Reset:
		return endReset
	case splice.CameBack:
		return endBack
	}
	return endLost
}

func (p tcxPair) traffic() traffic {
	client, upstream := p.pair.Traffic()
	return traffic{sideOf(client), sideOf(upstream)}
}

func sideOf(h splice.Half) sideTraffic {
	return sideTraffic{bytes: h.Stream, sent: h.Bytes, again: h.Retransmitted}
}

func (p tcxPair) wants() <-chan splice.Reason { return p.pair.Wants() }

func (p tcxPair) back(ctx context.Context) (client, upstream *net.TCPConn, err error) {
	return p.pair.Return(ctx)
}

func (p tcxPair) abort() error { return p.pair.Abort() }
