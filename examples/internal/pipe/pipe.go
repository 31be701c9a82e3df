// Package pipe moves what two programs have to say to each other over a
// connection, a stream for each way, and shows how it goes.
package pipe

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/schollz/progressbar/v3"

	"github.com/quicway/quicway/p2p"
)

// Early is the code with which a program ends a connection before both ends are
// through.
const Early quic.ApplicationErrorCode = 1

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

// Run moves bytes both ways until both ends are through, or ctx is done. The
// progress bar goes to stderr.
func (s *Side) Run(ctx context.Context) (*Result, error) {
	defer context.AfterFunc(ctx, func() { _ = s.Conn.CloseWithError(Early, "interrupted") })()
	res, err := s.run(ctx)
	if err != nil {
		err = s.explain(ctx, err)
		_ = s.Conn.CloseWithError(Early, err.Error())
		return nil, err
	}
	return res, nil
}

func (s *Side) run(ctx context.Context) (*Result, error) {
	bar := s.bar()
	start := time.Now()
	sent, received := sha256.New(), sha256.New()
	var res Result
	got := make(chan struct{})
	sending := make(chan error, 1)
	go func() {
		var err error
		if res.Sent, err = s.send(ctx, io.MultiWriter(sent, bar), got); err != nil {
			_ = s.Conn.CloseWithError(Early, err.Error())
		}
		sending <- err
	}()
	var err error
	to := io.MultiWriter(s.Out, received)
	if s.Size < 0 { // else the bar is about what is sent
		to = io.MultiWriter(to, bar)
	}
	if res.Received, err = s.receive(ctx, to); err != nil {
		return nil, err
	}
	close(got)
	if err := s.sent(sending); err != nil {
		return nil, err
	}
	_ = bar.Finish()
	res.Took = time.Since(start)
	sent.Sum(res.SentHash[:0])
	received.Sum(res.ReceivedHash[:0])
	return &res, nil
}

// sent waits until all has been sent. If the connection is over before, In may
// have nothing to read for ever, and is left alone.
func (s *Side) sent(sending <-chan error) error {
	select {
	case err := <-sending:
		return err
	case <-s.Conn.Context().Done():
	}
	var application *quic.ApplicationError
	if err := s.Conn.Err(); !errors.As(err, &application) || application.ErrorCode != 0 {
		return err
	}
	return <-sending // the other side has got all, and left
}

// send sends In, and tells also what it has sent. The last side ends its stream
// once got is closed.
func (s *Side) send(ctx context.Context, also io.Writer, got <-chan struct{}) (n int64, err error) {
	stream, err := s.Conn.OpenUniStreamSync(ctx)
	if err != nil {
		return 0, err
	}
	if s.In != nil {
		if n, err = io.Copy(stream, io.TeeReader(s.In, also)); err != nil {
			return n, err
		}
	}
	if s.Last {
		select {
		case <-got:
		case <-s.Conn.Context().Done():
		}
	}
	return n, stream.Close()
}

func (s *Side) receive(ctx context.Context, to io.Writer) (int64, error) {
	stream, err := s.Conn.AcceptUniStream(ctx)
	if err != nil {
		return 0, err
	}
	return io.Copy(to, stream)
}

// explain prefers the reason why the connection has ended.
func (s *Side) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var application *quic.ApplicationError
	switch connErr := s.Conn.Err(); {
	case errors.As(connErr, &application) && application.ErrorCode == Early && application.Remote:
		return fmt.Errorf("the other side left early: %s", application.ErrorMessage)
	case errors.As(connErr, &application) && application.ErrorCode == Early:
		return errors.New(application.ErrorMessage)
	case connErr != nil:
		return connErr
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
	go s.describe(bar)
	return bar
}

// describe shows the path as it is, and how long packets take there and back.
func (s *Side) describe(bar *progressbar.ProgressBar) {
	ctx := s.Conn.Context()
	changes := make(chan struct{}, 1)
	go func() {
		for range s.Conn.PathEvents(ctx) {
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		case <-ticker.C:
		}
		p := s.Conn.Path()
		bar.Describe(fmt.Sprintf("%v %v, RTT %v (%v)", p.Kind, p.Remote, p.RTT.Round(10*time.Microsecond), p.Why))
	}
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
	if stats.TimeToDirect > 0 {
		fmt.Fprintf(os.Stderr, "direct after %v, left %d times\n", stats.TimeToDirect.Round(time.Millisecond), stats.Fallbacks)
	}
}

// Policy is what the flags of a program say about paths.
type Policy struct{ relayOnly, directOnly bool }

// Flags are those about paths, which flag.Parse reads.
func (p *Policy) Flags() {
	flag.BoolVar(&p.relayOnly, "relay-only", false, "stay on the relay, and tell the peer no address")
	flag.BoolVar(&p.directOnly, "direct-only", false, "give up if there is no direct path")
}

// Path is the policy that p2p.Config wants.
func (p *Policy) Path() (p2p.PathPolicy, error) {
	switch {
	case p.relayOnly && p.directOnly:
		return 0, errors.New("-relay-only and -direct-only leave no path")
	case p.relayOnly:
		return p2p.RelayOnly, nil
	case p.directOnly:
		return p2p.DirectOnly, nil
	}
	return p2p.PreferDirect, nil
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
