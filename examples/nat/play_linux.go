package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/quicway/quicway/p2p"
)

// play runs the steps that the connection should survive.
func (d *demo) play(ctx context.Context, size int64) error {
	beat, err := startBeat(ctx, d.alice.conn, d.bob.conn)
	if err != nil {
		return err
	}
	if err := d.await(ctx, "direct", p2p.Direct); err != nil {
		return err
	}
	time.Sleep(time.Second) // the standby is validated
	upgrade := beat.reset()
	forwarded := d.server.Stats().ForwardedPackets
	time.Sleep(time.Second)
	byRelay := d.server.Stats().ForwardedPackets - forwarded
	d.step("relay idle", fmt.Sprintf("forwarded %d packets in a second", byRelay))
	beat.reset()
	if err := d.cutAndMend(ctx, nil); err != nil {
		return err
	}
	cut := beat.reset()
	for _, way := range [2][2]*peer{{d.alice, d.bob}, {d.bob, d.alice}} {
		if err := d.transfer(ctx, way[0], way[1], size); err != nil {
			return err
		}
	}
	if err := beat.end(); err != nil {
		return fmt.Errorf("the ping-pong broke: %w", err)
	}
	d.report(upgrade, cut)
	if byRelay != 0 {
		return fmt.Errorf("the relay forwarded %d packets of a direct connection", byRelay)
	}
	return nil
}

// report prints the figures. The round trip to the relay crosses the core twice, and the
// round trip between the peers through the relay four times.
func (d *demo) report(upgrade, cut time.Duration) {
	rtt := 4 * d.core.delay
	fmt.Fprintln(d.out)
	d.goal("handshake done to direct (3 RTTs over the relay + 50 ms)", d.alice.conn.Stats().TimeToDirect, 3*rtt+50*time.Millisecond)
	d.goal("longest pause of a 20 ms ping-pong at the upgrade (RTT + 50 ms)", upgrade, rtt+50*time.Millisecond)
	d.goal("the same at the cut", cut, time.Second)
}

// await waits until both paths are of a kind.
func (d *demo) await(ctx context.Context, what string, kind p2p.PathKind) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range []*peer{d.alice, d.bob} {
		if err := d.awaitOne(ctx, what, p, kind); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) awaitOne(ctx context.Context, what string, p *peer, kind p2p.PathKind) error {
	var last p2p.Path
	for path := range p.conn.PathEvents(ctx) {
		if last = path; path.Kind == kind {
			d.step(what, fmt.Sprintf("%s: %v to %v, %v", p.name, path.Kind, path.Remote, path.Why))
			return nil
		}
	}
	return fmt.Errorf("%s: %s has none: its path is %v to %v, %v, connection: %w",
		what, p.name, last.Kind, last.Remote, last.Why, errors.Join(p.conn.Err(), ctx.Err()))
}

// cutAndMend cuts the direct path until the connection is on the relay and meanwhile, if not
// nil, has returned.
func (d *demo) cutAndMend(ctx context.Context, meanwhile func() error) error {
	d.core.cut.Store(true)
	d.step("cut", "between "+aliceNAT+" and "+bobNAT)
	err := d.await(ctx, "fallback", p2p.Relayed)
	if err == nil && meanwhile != nil {
		err = meanwhile()
	}
	if err != nil {
		return err
	}
	d.core.cut.Store(false)
	d.step("mended", "")
	return d.await(ctx, "direct again", p2p.Direct)
}

// transfer sends data, and cuts the path in the middle.
func (d *demo) transfer(ctx context.Context, from, to *peer, size int64) error {
	d.step("transfer", fmt.Sprintf("%d bytes from %s to %s", size, from.name, to.name))
	sending, sent := make(chan error, 1), sha256.New()
	go func() {
		stream, err := from.conn.OpenUniStreamSync(ctx)
		if err == nil {
			source := io.LimitReader(rand.NewChaCha8([32]byte{byte(size)}), size)
			_, err = io.Copy(io.MultiWriter(stream, sent), source)
			err = errors.Join(err, stream.Close())
		}
		sending <- err
	}()
	stream, err := to.conn.AcceptUniStream(ctx)
	if err != nil {
		return errors.Join(err, to.conn.Err())
	}
	got := sha256.New()
	if _, err := io.CopyN(got, stream, size/2); err != nil {
		return errors.Join(err, to.conn.Err())
	}
	rest := make(chan error, 1)
	go func() {
		_, err := io.Copy(got, stream)
		rest <- err
	}()
	return d.cutAndMend(ctx, func() error {
		if err := errors.Join(<-rest, <-sending); err != nil {
			return errors.Join(err, to.conn.Err())
		}
		if string(sent.Sum(nil)) != string(got.Sum(nil)) {
			return errors.New("the received bytes differ from the sent ones")
		}
		d.step("transferred", fmt.Sprintf("SHA-256 %x is the same at both ends", got.Sum(nil)[:8]))
		return nil
	})
}

// beat sends a byte every 20 ms, which the other side sends back, and measures the longest
// time without one.
type beat struct {
	stop context.CancelFunc
	over chan error

	mu      sync.Mutex // guards the following
	last    time.Time
	longest time.Duration
}

func startBeat(ctx context.Context, from, to *p2p.Conn) (*beat, error) {
	ctx, stop := context.WithCancel(ctx)
	stream, err := from.OpenStreamSync(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	go func() {
		if s, err := to.AcceptStream(ctx); err == nil {
			_, _ = io.Copy(s, s)
			_ = s.Close()
		}
	}()
	b := &beat{stop: stop, over: make(chan error, 1), last: time.Now()}
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			if _, err := stream.Write([]byte{1}); err != nil {
				return
			}
			<-ticker.C
		}
		_ = stream.Close()
	}()
	go b.listen(stream)
	return b, nil
}

func (b *beat) listen(r io.Reader) {
	buf := make([]byte, 1024)
	for {
		if _, err := r.Read(buf); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			b.over <- err
			return
		}
		b.mu.Lock()
		b.longest = max(b.longest, time.Since(b.last))
		b.last = time.Now()
		b.mu.Unlock()
	}
}

// reset returns the longest pause, and starts again from zero.
func (b *beat) reset() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := max(b.longest, time.Since(b.last))
	b.longest = 0
	return longest
}

// end ends the ping-pong, and returns an error if it has failed.
func (b *beat) end() error {
	b.stop()
	return <-b.over
}
