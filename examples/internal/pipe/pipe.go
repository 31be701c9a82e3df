// Package pipe moves what two programs have to say to each other over one
// stream of a connection, and shows how it goes.
package pipe

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/schollz/progressbar/v3"

	"github.com/quicway/quicway/p2p"
)

// Code with which an interrupted program ends a connection.
const Interrupted quic.ApplicationErrorCode = 1

// Side is one end of the pipe.
type Side struct {
	Conn *p2p.Conn
	In   io.Reader // sent to the peer; nil: nothing
	Out  io.Writer // gets what the peer sends
	Size int64     // of In, or -1
	// Last is the side that ends its stream only when it has received all,
	// so that the other knows.
	Last bool
}

// Result is what has passed.
type Result struct {
	Sent, Received         int64
	SentHash, ReceivedHash [sha256.Size]byte
	Took                   time.Duration
}

// Run moves bytes both ways over stream until both ends are through, or ctx is
// done. The progress bar goes to stderr.
func (s *Side) Run(ctx context.Context, stream *quic.Stream) (*Result, error) {
	defer context.AfterFunc(ctx, func() { _ = s.Conn.CloseWithError(Interrupted, "interrupted") })()
	bar := s.bar()
	start := time.Now()
	sent, received := sha256.New(), sha256.New()
	var res Result
	sending := make(chan error, 1)
	go func() {
		var err error
		res.Sent, err = s.send(stream, sent, bar)
		if !s.Last {
			err = errors.Join(err, stream.Close())
		}
		sending <- err
	}()
	var err error
	res.Received, err = io.Copy(io.MultiWriter(s.Out, received, bar), stream)
	err = errors.Join(err, <-sending)
	if s.Last {
		err = errors.Join(err, stream.Close())
	}
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	_ = bar.Finish()
	res.Took = time.Since(start)
	sent.Sum(res.SentHash[:0])
	received.Sum(res.ReceivedHash[:0])
	return &res, nil
}

func (s *Side) send(stream *quic.Stream, sum hash.Hash, bar io.Writer) (int64, error) {
	if s.In == nil {
		return 0, nil
	}
	return io.Copy(stream, io.TeeReader(s.In, io.MultiWriter(sum, bar)))
}

// explain prefers the reason why the connection has ended.
func (s *Side) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.Conn.Err() != nil {
		return s.Conn.Err()
	}
	return err
}

// bar shows rate and path.
func (s *Side) bar() *progressbar.ProgressBar {
	bar := progressbar.NewOptions64(s.Size,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(200*time.Millisecond),
		progressbar.OptionSetWidth(24),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(os.Stderr) }),
	)
	go func() {
		for path := range s.Conn.PathEvents(s.Conn.Context()) {
			bar.Describe(fmt.Sprintf("over %v %v (%v)", path.Kind, path.Remote, path.Why))
		}
	}()
	return bar
}

// Print says what has passed.
func (r *Result) Print(c *p2p.Conn) {
	for _, way := range []struct {
		what string
		n    int64
		hash [sha256.Size]byte
	}{{"sent", r.Sent, r.SentHash}, {"received", r.Received, r.ReceivedHash}} {
		if way.n > 0 {
			fmt.Fprintf(os.Stderr, "%s %d bytes in %v, SHA-256 %x\n", way.what, way.n, r.Took.Round(time.Millisecond), way.hash)
		}
	}
	stats := c.Stats()
	fmt.Fprintf(os.Stderr, "path %v, connection IDs made %d, packets sent %d, received %d, lost %d\n",
		c.Path().Kind, stats.IDs, stats.PacketsSent, stats.PacketsReceived, stats.PacketsLost)
}

// Stdin returns the standard input if something feeds it, or nil if it is a
// terminal.
func Stdin() io.Reader {
	info, err := os.Stdin.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice != 0 {
		return nil
	}
	return os.Stdin
}

// Fail ends the program with one clear line.
func Fail(program string, err error) {
	if err == nil {
		return
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "\n%s: interrupted\n", program)
		os.Exit(130)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
	os.Exit(1)
}
