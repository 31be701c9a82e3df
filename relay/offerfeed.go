package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/control"
)

// offerFeed hands out the offers under a name on the stream of one request, one after the
// other, for as long as the request says. While there is no offer, no goroutine waits.
type offerFeed struct {
	api     *offerAPI
	client  *client
	again   time.Duration // see mailbox.take
	until   time.Time     // when the request ends
	stream  *http3.Stream
	handing errand
	due     *time.Timer // wakes handing: the request ends, or an offer may be handed out again

	mu     sync.Mutex // guards the following
	waiter *waiter    // nil: the request has ended
	whole  bool       // the time of the request is over, and the client gets the whole answer
}

// serveFeed begins to hand out offers. The handler returns at once.
func (a *offerAPI) serveFeed(w http.ResponseWriter, c *client, box boxName, wait, again time.Duration) error {
	f := &offerFeed{api: a, client: c, again: again, until: time.Now().Add(wait)}
	f.handing = errand{of: &c.errands, do: f.hand}
	f.mu.Lock()
	defer f.mu.Unlock()
	waiter, err := a.mailbox.wait(box, c, f.handing.want)
	if err != nil {
		return err
	}
	if f.stream, err = takeStream(w, control.OffersType); err != nil {
		a.mailbox.leave(waiter)
		return nil // the connection has ended
	}
	f.waiter, f.due = waiter, time.AfterFunc(wait, f.handing.want)
	done := c.listen()
	context.AfterFunc(f.stream.Context(), func() {
		f.end()
		done()
		endStream(f.stream)
	})
	f.handing.want()
	return nil
}

// hand hands out the offers that there are.
func (f *offerFeed) hand() {
	for {
		o, next, err := f.next()
		switch {
		case errors.Is(err, errFeedEnded):
			return
		case err != nil:
			f.refuse(err)
			return
		case o == nil && !time.Now().Before(f.until):
			f.complete()
			return
		case o == nil:
			if next.IsZero() || next.After(f.until) {
				next = f.until
			}
			f.wakeAt(next)
			return
		}
		sender := f.api.auth.tokens.sender(o.from)
		if f.write(&control.Offered{Number: o.number, Sender: sender, Size: len(o.text)}, o.text) != nil {
			return // the request has ended
		}
	}
}

// errFeedEnded: the request has ended.
var errFeedEnded = errors.New("the request has ended")

// next returns the next offer, or when there may be one.
func (f *offerFeed) next() (o *offer, next time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiter == nil {
		return nil, time.Time{}, errFeedEnded
	}
	return f.api.mailbox.next(f.waiter, f.again)
}

// wakeAt wakes handing at a time, unless the request has ended.
func (f *offerFeed) wakeAt(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiter != nil {
		f.due.Reset(time.Until(at))
	}
}

// refuse ends the request with an error, if the client should know of it. The client may have
// given up the request before it made the one that has displaced this one, and has not read all
// offers then.
func (f *offerFeed) refuse(err error) {
	if !errors.Is(err, errSuperseded) {
		_, problem := problemOf(err)
		_ = f.write(&control.Offered{Problem: problem}, nil) // fails only if the request has ended
	}
	endStream(f.stream)
}

// write writes a line, and the text that it announces.
func (f *offerFeed) write(line *control.Offered, text []byte) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(line); err != nil {
		return err
	}
	b.Write(text)
	_, err := f.stream.Write(b.Bytes())
	return err
}

// complete ends the request, whose answer the client gets in full.
func (f *offerFeed) complete() {
	f.mu.Lock()
	f.whole = true
	f.mu.Unlock()
	endStream(f.stream)
}

// end notes that the request has ended. If the client has given it up, the client may not have
// got the latest offers, or may not have read them.
func (f *offerFeed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due.Stop()
	if f.waiter == nil {
		return
	}
	if !f.whole {
		f.api.mailbox.undoHandouts(f.waiter)
	}
	f.api.mailbox.leave(f.waiter)
	f.waiter = nil
}
