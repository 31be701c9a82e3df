// Package ratelog bounds what is logged, so that nobody who can have a line written
// fills a disk with it.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds of what is logged.
const (
	// Burst is how many lines with one message may be logged at once.
	Burst = 20
	// Period is how long it takes until there may be one more.
	Period = time.Second
	// maxMessages bounds the messages that are told apart. They are constants
	// of the code; all beyond share one bound.
	maxMessages = 256
	// maxText is how much is logged of one attribute's text, in bytes: a peer may
	// have chosen it.
	maxText = 256
)

// omitted is the attribute that says how many lines like this one were left out
// before it.
const omitted = "omitted"

// New returns a logger that writes what log writes, but of each message [Burst]
// lines at once, and then one each [Period]. The line that comes after some were
// left out says how many. nil discards. It returns a logger that New has made
// unchanged.
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

// rates are shared by all loggers that were made of one.
type rates struct {
	mu      sync.Mutex // guards the following
	buckets map[string]*bucket
}

// bucket is what may be logged of one message.
type bucket struct {
	full    time.Time // when the whole burst is free again
	omitted int
}

// take says whether a line may be logged, and how many were not before it.
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

// short cuts the text of an attribute.
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
