package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quicway/quicway/p2p"
)

// talk is two honest peers that exchange messages through the relay.
type talk struct {
	ends   [2]*p2p.Endpoint
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex // guards the following
	began    time.Time  // the message under way
	messages int
	slowest  time.Duration
	err      error
}

func startTalk(ctx context.Context, relay *relayProcess) (*talk, error) {
	where, err := relay.where()
	if err != nil {
		return nil, err
	}
	t := &talk{done: make(chan struct{})}
	for i := range t.ends {
		if t.ends[i], err = p2p.NewEndpoint(&p2p.Config{Relay: where, Policy: p2p.RelayOnly}); err != nil {
			return nil, err
		}
	}
	ctx, t.cancel = context.WithCancel(ctx)
	go t.echo(ctx)
	dialing, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := t.ends[0].Dial(dialing, t.ends[1].ID(), nil)
	if err != nil {
		t.cancel()
		return nil, fmt.Errorf("the honest peers do not connect: %w", err)
	}
	go t.chat(ctx, conn)
	return t, nil
}

// echo sends back what it receives.
func (t *talk) echo(ctx context.Context) {
	conn, err := t.ends[1].Accept(ctx)
	if err != nil {
		t.fail(ctx, err)
		return
	}
	stream, err := conn.AcceptStream(ctx)
	if err == nil {
		_, err = io.Copy(stream, stream)
	}
	t.fail(ctx, err)
}

// chat sends the next message when the last one has come back.
func (t *talk) chat(ctx context.Context, conn *p2p.Conn) {
	defer close(t.done)
	stream, err := conn.OpenStreamSync(ctx)
	message := make([]byte, 1000)
	for err == nil && ctx.Err() == nil {
		begin := t.begin()
		if _, err = stream.Write(message); err == nil {
			_, err = io.ReadFull(stream, message)
		}
		t.came(err, time.Since(begin))
		time.Sleep(10 * time.Millisecond)
	}
	t.fail(ctx, err)
}

func (t *talk) begin() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began = time.Now()
	return t.began
}

func (t *talk) came(err error, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.messages++
		t.slowest, t.began = max(t.slowest, after), time.Time{}
	}
}

// fail keeps the first error that is not caused by the end.
func (t *talk) fail(ctx context.Context, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil && ctx.Err() == nil {
		t.err = err
	}
}

func (t *talk) result() (messages int, slowest time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slowest = t.slowest
	if !t.began.IsZero() { // one has not come back yet
		slowest = max(slowest, time.Since(t.began))
	}
	return t.messages, slowest, t.err
}

func (t *talk) stop() {
	t.cancel()
	for _, e := range t.ends {
		_ = e.Close()
	}
	<-t.done
}
