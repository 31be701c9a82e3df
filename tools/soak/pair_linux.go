package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/quicway/quicway/p2p"
)

// Durations and numbers of a pair.
const (
	dialPatience     = 20 * time.Second
	transferPatience = time.Minute
	transfersEach    = 3 // of a connection
	connectionsEach  = 4 // of a pair of endpoints
	maxRest          = time.Second
)

// pair is two endpoints, one on each side, that are opened and closed repeatedly.
type pair struct {
	*stage
	index int
	ends  [2]*p2p.Endpoint
}

// open opens both endpoints.
func (p *pair) open() error {
	for i, host := range p.hosts.sides {
		conn, err := listen(host, peerAddrs[i]+":0")
		if err != nil {
			return err
		}
		conf := &p2p.Config{Relay: p.at(), Policy: p2p.RelayOnly, DisablePortMapping: true, OfferTTL: dialPatience}
		if err := host.Run(func() (err error) {
			p.ends[i], err = p2p.NewEndpoint(conf, conn)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// close closes both endpoints.
func (p *pair) close() {
	for i, e := range p.ends {
		if e != nil {
			if err := e.Close(); err != nil {
				p.broke(fmt.Errorf("close endpoint: %w", err))
			}
		}
		p.ends[i] = nil
	}
}

// churn connects, transfers and pauses until working is done. It finishes what has begun by
// then.
func (p *pair) churn(ctx, working context.Context) {
	defer p.close()
	for n := 0; pause(working, rand.N(maxRest)); n++ {
		if n%connectionsEach == 0 {
			p.close()
			if err := p.open(); err != nil {
				p.broke(fmt.Errorf("open endpoints: %w", err))
				return
			}
		}
		if err := p.once(ctx); err != nil {
			p.broke(fmt.Errorf("pair %d: %w", p.index, err))
		}
	}
}

// once makes one connection and its transfers. A failure to connect is permitted, because of
// the faults of the network. Any later failure is an error.
func (p *pair) once(ctx context.Context) error {
	left, right, err := p.connect(ctx)
	if err != nil {
		p.redial(err)
		return nil
	}
	defer right.CloseWithError(0, "")
	defer left.CloseWithError(0, "")
	p.connected.Add(1)
	for range transfersEach {
		if err := p.both(ctx, left, right); err != nil {
			return err
		}
		p.equal.Add(2)
		pause(ctx, rand.N(maxRest))
	}
	return nil
}

// connect has the left endpoint dial the right one, and hands over the offer.
func (p *pair) connect(ctx context.Context) (left, right *p2p.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	got := make(chan *p2p.Conn, 1)
	deliver := func(ctx context.Context, o p2p.Offer) error {
		c, err := p.ends[1].AcceptOffer(ctx, o)
		if err == nil {
			got <- c
		}
		return err
	}
	left, err = p.ends[0].Dial(ctx, p.ends[1].ID(), &p2p.DialConfig{Deliver: deliver})
	if err != nil {
		cancel()
		select {
		case c := <-got:
			c.CloseWithError(0, "")
		default:
		}
		return nil, nil, err
	}
	select {
	case right = <-got:
		return left, right, nil
	case <-ctx.Done():
		left.CloseWithError(0, "")
		return nil, nil, fmt.Errorf("the accepter: %w", ctx.Err())
	}
}

// both sends data in both directions at the same time.
func (p *pair) both(ctx context.Context, left, right *p2p.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, transferPatience)
	defer cancel()
	back := make(chan error, 1)
	go func() { back <- transfer(ctx, right, left, p.options.bytes) }()
	return errors.Join(transfer(ctx, left, right, p.options.bytes), <-back)
}

// transfer sends n random bytes on a new stream, and compares what arrives.
func transfer(ctx context.Context, from, to *p2p.Conn, n int) error {
	sent, got := sha256.New(), sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- pour(ctx, from, n, sent) }()
	stream, err := to.AcceptUniStream(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("accept stream: %w", err), <-sending)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelRead(0) })()
	arrived, err := io.Copy(got, stream)
	if err := errors.Join(err, <-sending); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", arrived, n, err)
	}
	if [sha256.Size]byte(sent.Sum(nil)) != [sha256.Size]byte(got.Sum(nil)) {
		return fmt.Errorf("%d of %d bytes arrived, and they differ", arrived, n)
	}
	return nil
}

// pour sends n random bytes on a new stream, and writes them to another writer as well.
func pour(ctx context.Context, c *p2p.Conn, n int, also io.Writer) error {
	stream, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	defer context.AfterFunc(ctx, func() { stream.CancelWrite(0) })()
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	if _, err := io.Copy(io.MultiWriter(stream, also), io.LimitReader(rand.NewChaCha8(seed), int64(n))); err != nil {
		return err
	}
	return stream.Close()
}
