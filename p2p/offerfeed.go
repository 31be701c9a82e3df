package p2p

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// mailboxOffer is an offer from the mailbox.
type mailboxOffer struct {
	conn   *controlConn
	text   string
	number uint64 // for the acknowledgement; zero: the relay does not say
	sender string // who has left the offer; "" if the relay does not say
}

// offerFeed is a request for offers that the relay answers with one offer after the other.
type offerFeed struct {
	conn *controlConn
	body io.ReadCloser
	in   *bufio.Reader
}

// takeOffer waits for an offer. It returns nil if none came in time. The token may be
// empty, but the relay has more room for requests with one. The relay goes on to send offers
// after takeOffer has returned one, until stopOffers is called.
func (c *controlConn) takeOffer(ctx context.Context, name, token string) (*mailboxOffer, error) {
	if c.feed != nil {
		if o, err := c.nextOffer(ctx); o != nil || err != nil {
			return o, err
		}
	}
	if o, err := c.askOffers(ctx, name, token); c.feed == nil {
		return o, err
	}
	return c.nextOffer(ctx)
}

// askOffers asks for offers. The relay sends one offer after the other, and feed is set then,
// or it sends one only, or none.
func (c *controlConn) askOffers(ctx context.Context, name, token string) (*mailboxOffer, error) {
	authorization := ""
	if token != "" {
		authorization = control.Bearer + token
	}
	path := fmt.Sprintf(control.OffersPath+"?wait=%d&%s=%d&%s=1", name, control.MaxWait/time.Second,
		control.AgainParameter, showAgain/time.Second, control.StreamParameter)
	resp, err := c.open(ctx, http.MethodGet, path, authorization, nil)
	if err != nil || resp == nil {
		return nil, err
	}
	if resp.Header.Get("Content-Type") == control.OffersType {
		c.feed = &offerFeed{conn: c, body: resp.Body, in: bufio.NewReaderSize(resp.Body, 512)}
		return nil, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxOfferText+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	}
	number, _ := strconv.ParseUint(resp.Header.Get(control.OfferField), 10, 64)
	return &mailboxOffer{conn: c, text: string(text), number: number, sender: resp.Header.Get(control.SenderField)}, nil
}

// nextOffer waits for the next offer of the feed, or nil when the feed has ended.
func (c *controlConn) nextOffer(ctx context.Context) (*mailboxOffer, error) {
	feed := c.feed
	defer context.AfterFunc(ctx, func() { feed.body.Close() })()
	o, err := feed.next()
	if o != nil {
		return o, nil
	}
	c.stopOffers()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err == io.EOF:
		return nil, nil
	}
	return nil, err
}

// stopOffers ends the request for offers, if there is one. c may be nil. An offer that is on
// its way is not lost: the relay shows it again.
func (c *controlConn) stopOffers() {
	if c != nil && c.feed != nil {
		_ = c.feed.body.Close()
		c.feed = nil
	}
}

// next reads an offer. It returns io.EOF at the end of the answer.
func (f *offerFeed) next() (*mailboxOffer, error) {
	line, err := f.line()
	if err == io.EOF && len(line) == 0 {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	}
	var head control.Offered
	if json.Unmarshal(line, &head) != nil || head.Size < 0 {
		return nil, fmt.Errorf("%w: malformed answer", ErrRelayUnreachable)
	}
	if head.Problem != nil {
		return nil, &refusedError{problem: *head.Problem}
	}
	// An offer that is too long is malformed. The relay is told so by its number.
	text, err := io.ReadAll(io.LimitReader(f.in, int64(min(head.Size, maxOfferText+1))))
	if err == nil {
		_, err = io.CopyN(io.Discard, f.in, int64(head.Size-len(text)))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	}
	return &mailboxOffer{conn: f.conn, text: string(text), number: head.Number, sender: head.Sender}, nil
}

// line reads a line of at most control.MaxBody bytes.
func (f *offerFeed) line() ([]byte, error) {
	var line []byte
	for len(line) <= control.MaxBody {
		part, err := f.in.ReadSlice('\n')
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
	return nil, fmt.Errorf("line of more than %d bytes", control.MaxBody)
}
