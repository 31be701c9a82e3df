package ratelog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRate checks that of each message a burst is logged, and then one line in each period,
// which says how many were left out.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := New(slog.New(slog.NewTextHandler(&out, nil)))
		lines := func() int {
			defer out.Reset()
			return strings.Count(out.String(), "\n")
		}
		for range 20_000 {
			log.With("peer", 1).Info("again")
		}
		if n := lines(); n != Burst {
			t.Errorf("%d lines at once, want %d", n, Burst)
		}
		log.Info("another")
		if n := lines(); n != 1 {
			t.Error("another message was left out as well")
		}
		time.Sleep(Period)
		log.Info("again")
		if want := fmt.Sprint("omitted=", 20_000-Burst); !strings.Contains(out.String(), want) {
			t.Errorf("%q does not say %q", out.String(), want)
		}
		log.Info("again")
		if n := lines(); n != 1 {
			t.Errorf("%d lines after a period, want 1", n)
		}
		time.Sleep(time.Hour)
		for range 100 {
			log.Info("again")
		}
		if n := lines(); n != Burst {
			t.Errorf("%d lines after a long time, want %d", n, Burst)
		}
	})
}

// TestBounds checks that long text and many messages do not make a long log.
func TestBounds(t *testing.T) {
	var out bytes.Buffer
	log := New(slog.New(slog.NewTextHandler(&out, nil)))
	long := strings.Repeat("a", 10_000)
	log.Warn("long", "text", long, "err", errors.New(long))
	if n := out.Len(); n > 4*maxText {
		t.Errorf("a line of %d bytes", n)
	}
	out.Reset()
	for i := range 10 * maxMessages {
		log.Info(fmt.Sprint("message ", i))
	}
	if n := strings.Count(out.String(), "\n"); n > maxMessages+Burst {
		t.Errorf("%d lines of messages that are made up", n)
	}
	if New(log) != log {
		t.Error("a rate on top of a rate")
	}
	New(nil).Error("discarded")
}
