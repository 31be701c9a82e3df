// Package ratelog limits how much is logged, so that a peer that causes log lines cannot
// fill the disk.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limits of what is logged.
const (
	// Burst is the number of lines with the same message that are logged at once.
	Burst = 20
	// Period is the time after which one more line with that message is logged.
	Period = time.Second
	// maxMessages is the number of messages that have a limit of their own. All further
	// ones share one. Messages are constants in the code, so there are few.
	maxMessages = 256
	// maxText is the maximum length of an attribute's text in bytes, since the text may
	// be chosen by a peer.
	maxText = 256
)

// omitted is the attribute with the number of lines with the same message that were left
// out before this one.
const omitted = "omitted"

// New returns a logger that limits what is written to log: of each message, [Burst] lines
// at once, and then one line in each [Period]. The first line after some were left out has
// an attribute with their number. If log is nil, all lines are discarded. If log was made
// by New, New returns it unchanged.
func New(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	if _, ok := log.Handler().(*handler); ok {
		return log
	}
	return slog.New(&handler{next: log.Handler(), rates: &rates{buckets: make(map[string]*bucket)}})
}

type handler struct {
	next  slog.Handler
	rates *rates
}

// rates are the limits of a logger, which it shares with those derived from it.
type rates struct {
	mu      sync.Mutex // guards the following
	buckets map[string]*bucket
}

// bucket is the limit of one message.
type bucket struct {
	full    time.Time // when a whole burst may be logged again
	omitted int
}

// take reports whether a line may be logged, and how many lines were left out before it.
func (r *rates) take(message string, now time.Time) (omitted int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[message]
	if b == nil {
		if len(r.buckets) >= maxMessages {
			message = ""
			b = r.buckets[message]
		}
		if b == nil {
			b = &bucket{}
			r.buckets[message] = b
		}
	}
	if b.full.Before(now) {
		b.full = now
	}
	if b.full.Sub(now) > (Burst-1)*Period {
		b.omitted++
		return 0, false
	}
	b.full = b.full.Add(Period)
	omitted, b.omitted = b.omitted, 0
	return omitted, true
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	left, ok := h.rates.take(record.Message, time.Now())
	if !ok {
		return nil
	}
	out := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(short(a))
		return true
	})
	if left > 0 {
		out.AddAttrs(slog.Int(omitted, left))
	}
	return h.next.Handle(ctx, out)
}

// short returns an attribute with its text cut to maxText.
func short(a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, cut(v.String()))
	case slog.KindAny:
		if err, ok := v.Any().(error); ok && len(err.Error()) > maxText {
			return slog.String(a.Key, cut(err.Error()))
		}
	}
	return a
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText] + "…"
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.rates}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.rates}
}
