//go:build unix

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/p2p"
)

const (
	pingPeriod = 20 * time.Millisecond
	// wellAfter is how many answers in a row say that the connection works again.
	wellAfter = 25
)

// meter measures for how long no ping is answered.
type meter struct {
	conn    *p2p.Conn
	arrived chan struct{} // holds a token if an answer has come

	mu      sync.Mutex // guards the following
	last    time.Time  // of the last answer
	gap     gap        // the longest one since reset
	answers uint64     // since reset
	err     error
}

// gap is a time without answers.
type gap struct {
	length time.Duration
	end    time.Time
}

// startPings makes a connection on which pings go each pingPeriod.
func (p *peers) startPings(ctx context.Context) (*meter, error) {
	dialed, accepted, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	p.pinging = dialed
	stream, err := dialed.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	go echo(ctx, accepted)
	m := &meter{conn: dialed, arrived: make(chan struct{}, 1), last: time.Now()}
	go m.write(ctx, stream)
	go m.read(stream)
	return m, nil
}

// echo sends back what comes on the next stream of a connection.
func echo(ctx context.Context, c *p2p.Conn) {
	stream, err := c.AcceptStream(ctx)
	if err != nil {
		return
	}
	_, _ = io.Copy(stream, stream)
	_ = stream.Close()
}

func (m *meter) write(ctx context.Context, stream *quic.Stream) {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-m.conn.Context().Done():
			return
		case <-ticker.C:
		}
		if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return
		}
	}
}

func (m *meter) read(stream *quic.Stream) {
	var b [8]byte
	for n := uint64(0); ; n++ {
		_, err := io.ReadFull(stream, b[:])
		if got := binary.BigEndian.Uint64(b[:]); err == nil && got != n {
			err = fmt.Errorf("answer %d is to ping %d", n, got)
		}
		m.note(err)
		if err != nil {
			return
		}
	}
}

// note takes note of an answer, or that there will be none any more.
func (m *meter) note(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if length := now.Sub(m.last); length > m.gap.length {
		m.gap = gap{length, now}
	}
	m.last, m.err = now, err
	m.answers++
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// carrier returns the address of the relay that carries the pings.
func (m *meter) carrier() string { return m.conn.Path().Relay }

// reset begins another measurement.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap, m.answers = gap{}, 0
}

// longest returns the longest silence since reset.
func (m *meter) longest() gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gap
}

// recovers waits until pings are answered again.
func (m *meter) recovers(ctx context.Context) error {
	m.mu.Lock()
	from := m.answers
	m.mu.Unlock()
	for {
		m.mu.Lock()
		well, err := m.answers >= from+wellAfter && m.conn.Path().Relay != "", m.err
		m.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("the connection with the pings is lost: %w", err)
		case well:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.arrived:
		}
	}
}
