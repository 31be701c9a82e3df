//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/quic-go/quic-go"
)

// chunkPeriod is how often a load writes.
const chunkPeriod = 50 * time.Millisecond

// load transfers random bytes to the peer, which sends them back.
type load struct {
	stop context.CancelFunc // ends the transfer
	sent chan sum
	got  chan sum
}

// sum is what went in one direction.
type sum struct {
	bytes int64
	hash  []byte
	err   error
}

// startLoad makes a connection that transfers bytes at a rate, in bytes per second.
func (p *peers) startLoad(ctx context.Context, rate int) (*load, error) {
	dialed, accepted, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := dialed.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	go echo(ctx, accepted)
	l := &load{sent: make(chan sum, 1), got: make(chan sum, 1)}
	writing, stop := context.WithCancel(ctx)
	l.stop = stop
	go func() { l.sent <- send(writing, stream, rate) }()
	go func() { l.got <- receive(stream) }()
	return l, nil
}

// send writes until ctx is done.
func send(ctx context.Context, stream *quic.Stream, rate int) (s sum) {
	h := sha256.New()
	defer func() { s.hash = h.Sum(nil) }()
	ticker := time.NewTicker(chunkPeriod)
	defer ticker.Stop()
	chunk := make([]byte, max(1, rate*int(chunkPeriod)/int(time.Second)))
	for {
		select {
		case <-ctx.Done():
			s.err = stream.Close()
			return s
		case <-ticker.C:
		}
		rand.Read(chunk)
		n, err := stream.Write(chunk)
		count(&s, h, chunk[:n])
		if err != nil {
			s.err = err
			return s
		}
	}
}

func count(s *sum, h hash.Hash, b []byte) {
	h.Write(b)
	s.bytes += int64(len(b))
}

// receive reads to the end.
func receive(stream *quic.Stream) (s sum) {
	h := sha256.New()
	s.bytes, s.err = io.Copy(h, stream)
	s.hash = h.Sum(nil)
	return s
}

// finish ends the transfer, and returns how many bytes went, and an error unless all of them
// have come back.
func (l *load) finish(ctx context.Context) (int64, error) {
	l.stop()
	sent := <-l.sent
	var got sum
	select {
	case got = <-l.got:
	case <-ctx.Done():
		return sent.bytes, ctx.Err()
	}
	if err := errors.Join(sent.err, got.err); err != nil {
		return sent.bytes, err
	}
	if sent.bytes != got.bytes || !bytes.Equal(sent.hash, got.hash) {
		return sent.bytes, fmt.Errorf("%d bytes sent, %d other ones came back", sent.bytes, got.bytes)
	}
	return sent.bytes, nil
}
