// Package pipe transfers data between two programs over a connection, on one stream in each
// direction, and shows the progress.
package pipe

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/schollz/progressbar/v3"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/p2p"
)

// early is the application error code of a connection that is closed before both sides have
// sent and received everything.
const early quic.ApplicationErrorCode = 1

// Side is one end of the pipe.
type Side struct {
	Conn *p2p.Conn
	In   io.Reader // sent to the peer; nil: nothing
	Out  io.Writer // gets what the peer sends
	Size int64     // of In in bytes, or -1 if it is not known
	// Last makes this side end its stream only when it has received everything, so that
	// the other side knows. One of the sides must set it.
	Last bool
}

// Result says what was transferred.
type Result struct {
	Sent, Received         int64
	SentHash, ReceivedHash [sha256.Size]byte
	Took                   time.Duration
}

// Run transfers data in both directions until both sides have sent and received everything,
// or ctx is done. It shows a progress bar on stderr. From now on the program is not killed when
// nobody reads its standard output any more: the peer is told.
func (s *Side) Run(ctx context.Context) (*Result, error) {
	signal.Ignore(syscall.SIGPIPE)
	defer context.AfterFunc(ctx, func() { _ = s.Conn.CloseWithError(early, "interrupted") })()
	res, err := s.run(ctx)
	if err != nil {
		err = s.explain(ctx, err)
		_ = s.Conn.CloseWithError(early, err.Error())
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
		if res.Sent, err = s.send(ctx, io.MultiWriter(sent, shown{bar}), got); err != nil {
			_ = s.Conn.CloseWithError(early, err.Error())
		}
		sending <- err
	}()
	var err error
	to := io.MultiWriter(s.Out, received)
	if s.Size < 0 { // otherwise the bar shows what is sent
		to = io.MultiWriter(to, shown{bar})
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

// sent waits until all has been sent, or the connection has ended: then In may block
// forever, and is not waited for.
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
	return <-sending // the other side has received everything, and closed the connection
}

// send sends In, and also writes it to also. The last side ends its stream when got is
// closed.
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

// explain returns why a transfer has failed with err.
func (s *Side) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ended := s.Conn.Err(); ended != nil { // a connection that ends at this moment has none yet
		err = ended
	}
	return plain(err)
}

// plain says in plain words that a side has closed the connection early.
func plain(err error) error {
	var application *quic.ApplicationError
	switch {
	case !errors.As(err, &application) || application.ErrorCode != early:
		return err
	case application.Remote:
		return fmt.Errorf("the other side closed the connection early: %s", application.ErrorMessage)
	}
	return errors.New(application.ErrorMessage)
}

// bar makes a progress bar that also shows the path.
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

// shown is a bar whose errors do not end the transfer: a file may grow while it is sent, and
// stderr may be full or closed.
type shown struct{ bar *progressbar.ProgressBar }

// Write implements [io.Writer].
func (s shown) Write(b []byte) (int, error) {
	_, _ = s.bar.Write(b)
	return len(b), nil
}

// describe shows the present path and its round-trip time in the bar.
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

// Print prints the result and the connection's counters on stderr.
func (r *Result) Print(c *p2p.Conn) {
	for _, direction := range []struct {
		what string
		n    int64
		hash [sha256.Size]byte
	}{{"sent", r.Sent, r.SentHash}, {"received", r.Received, r.ReceivedHash}} {
		if direction.n > 0 {
			fmt.Fprintf(os.Stderr, "%s %d bytes in %v, SHA-256 %x\n", direction.what, direction.n, r.Took.Round(time.Millisecond), direction.hash)
		}
	}
	stats := c.Stats()
	fmt.Fprintf(os.Stderr, "path %v, connection IDs made %d, packets sent %d, received %d, lost %d\n",
		c.Path().Kind, stats.IDs, stats.PacketsSent, stats.PacketsReceived, stats.PacketsLost)
	if stats.TimeToDirect > 0 {
		fmt.Fprintf(os.Stderr, "direct after %v, direct path died %d times\n", stats.TimeToDirect.Round(time.Millisecond), stats.Fallbacks)
	}
}

// Policy holds the flags that restrict the path.
type Policy struct{ relayOnly, directOnly bool }

// Flags defines the flags. Call it before flag.Parse.
func (p *Policy) Flags() {
	flag.BoolVar(&p.relayOnly, "relay-only", false, "use only the relay, and tell the peer no address")
	flag.BoolVar(&p.directOnly, "direct-only", false, "fail if there is no direct path")
}

// Path returns the policy for p2p.Config.
func (p *Policy) Path() (p2p.PathPolicy, error) {
	switch {
	case p.relayOnly && p.directOnly:
		return 0, program.Usagef("-relay-only and -direct-only exclude each other")
	case p.relayOnly:
		return p2p.RelayOnly, nil
	case p.directOnly:
		return p2p.DirectOnly, nil
	}
	return p2p.PreferDirect, nil
}

// Stdin returns the standard input, or nil if it is a terminal.
func Stdin() io.Reader {
	info, err := os.Stdin.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice != 0 {
		return nil
	}
	return os.Stdin
}
