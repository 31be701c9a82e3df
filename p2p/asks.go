package p2p

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/monotime"
)

// asks remembers when a relay was asked whether it answers, for all connections that want
// to know. Times are those of package monotime. The zero value is ready to use.
type asks struct {
	open     atomic.Int64 // when the question under way was first asked; 0: none is
	asked    atomic.Int64 // when the last question was; 0: never
	answered atomic.Int64 // when the last answer came; 0: never
	took     atomic.Int64 // nanoseconds from the question to that answer
}

// ask asks the relay whether it answers, unless a question is under way, or the last one
// was asked less than a period ago. It does not wait for the answer. A question is repeated
// until there is an answer, or the control connection has ended. The caller is one of the
// endpoint's tasks.
func (c *relayClient) ask(now time.Time, every time.Duration) {
	conn := c.present()
	if conn == nil || !c.asks.begin(now, every) {
		return
	}
	c.endpoint.tasks.Go(func() {
		defer c.asks.end()
		for c.present() == conn && c.endpoint.ctx.Err() == nil {
			if c.asks.pose(c.endpoint.ctx, conn.ping) {
				return
			}
			sleep(c.endpoint.ctx, askPatience)
		}
	})
}

// begin begins a question, unless one is under way, or the last one was asked less than a
// period ago.
func (a *asks) begin(now time.Time, every time.Duration) bool {
	at := monotime.Of(now)
	if at-a.asked.Load() < int64(every) || !a.open.CompareAndSwap(0, at) {
		return false
	}
	a.asked.Store(at)
	return true
}

// end ends the question under way.
func (a *asks) end() { a.open.Store(0) }

// unanswered is how long a question has been unanswered, or 0 if there is none.
func (a *asks) unanswered(now time.Time) time.Duration {
	open := a.open.Load()
	if open == 0 {
		return 0
	}
	return monotime.Age(open, now)
}

// pose asks once, and says whether there was an answer.
func (a *asks) pose(ctx context.Context, ping func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	if ping(ctx) != nil {
		return false
	}
	a.took.Store(int64(time.Since(began)))
	a.answered.Store(monotime.Now())
	return true
}

// answeredSince says whether the relay has answered a question at t or later.
func (c *relayClient) answeredSince(t time.Time) bool {
	return c.asks.answered.Load() >= monotime.Of(t)
}

// unanswered is how long a question has been unanswered, or 0 if there is none.
func (c *relayClient) unanswered(now time.Time) time.Duration { return c.asks.unanswered(now) }
