package p2p

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// acceptAll accepts the connections of a host until its endpoint is closed.
func (l *lab) acceptAll(h *host) {
	go func() {
		for {
			if _, err := h.Accept(context.Background()); err != nil {
				return
			}
		}
	}()
}

// TestManyDials dials one peer many times at once, and closes each connection at once. No dial is
// refused, and none waits until the relay shows an offer again. What an endpoint logs of legs that it
// gives back meanwhile is no warning.
func TestManyDials(t *testing.T) {
	runLab(t, func(l *lab) {
		var warnings strings.Builder
		dialer := l.host(func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&warnings, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		accepter := l.host(nil)
		l.acceptAll(accepter)
		var dials sync.WaitGroup
		for range 64 {
			dials.Go(func() {
				began := time.Now()
				c, err := dialer.Dial(l.Context(), accepter.ID(), nil)
				if err != nil {
					l.Error(err)
					return
				}
				if took := time.Since(began); took >= showAgain {
					l.Errorf("a dial took %v", took)
				}
				c.CloseWithError(0, "")
			})
		}
		dials.Wait()
		if n := len(dialer.turns.peers); n != 0 {
			l.Errorf("the dialer keeps turns of %d peers", n)
		}
		if busy := accepter.Stats().Offers["busy"]; busy != 0 {
			l.Errorf("the accepter left %d offers in the mailbox", busy)
		}
		if warnings.Len() > 0 {
			l.Errorf("the dialer warns:\n%s", &warnings)
		}
	})
}

// TestDialWaitsForTurn checks that a dial that has to wait for its turn ends when its context is done,
// when the endpoint is closed, and that it leaves no offer before.
func TestDialWaitsForTurn(t *testing.T) {
	runLab(t, func(l *lab) {
		dialer, absent, present := l.host(nil), l.host(nil), l.host(nil)
		l.acceptAll(present)
		errs := make(chan error, maxOffered+1)
		for range maxOffered {
			go func() {
				_, err := dialer.Dial(l.Context(), absent.ID(), nil)
				errs <- err
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, err := dialer.Dial(ctx, absent.ID(), nil)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "other dials of the peer") {
			l.Errorf("a ninth dial: %v", err)
		}
		if n := l.server.Stats().Offers; n != maxOffered {
			l.Errorf("%d offers in the mailbox, want %d", n, maxOffered)
		}
		if _, err := dialer.Dial(l.Context(), present.ID(), nil); err != nil {
			l.Errorf("a dial of another peer: %v", err)
		}
		go func() {
			_, err := dialer.Dial(l.Context(), absent.ID(), nil)
			errs <- err
		}()
		synctest.Wait()
		dialer.Close()
		for range maxOffered + 1 {
			if err := <-errs; !errors.Is(err, ErrClosed) {
				l.Errorf("after Close: %v", err)
			}
		}
	})
}

// TestAnswering checks which offers are answered at once, which wait and in which order, and which
// are left in the mailbox.
func TestAnswering(t *testing.T) {
	var begun []byte // the sessions of the offers, in the order in which they began
	a := answering{senders: make(map[string]int)}
	add := func(sender string, session byte) bool {
		o := waitingOffer{sender: sender, begin: func() { begun = append(begun, session) }}
		o.session[0] = session
		return a.add(o)
	}
	for i := range byte(maxAnsweringSender + maxWaitingSender) {
		if !add("mallory", i) {
			t.Fatalf("offer %d of a sender was left in the mailbox", i)
		}
	}
	if !add("mallory", maxAnsweringSender) {
		t.Error("an offer that waits was left in the mailbox when it was shown again")
	}
	if add("mallory", 99) {
		t.Error("too many offers of a sender wait")
	}
	if len(begun) != maxAnsweringSender {
		t.Fatalf("%d offers of a sender are answered at once, want %d", len(begun), maxAnsweringSender)
	}
	if !add("alice", 100) || begun[len(begun)-1] != 100 {
		t.Error("the offer of another sender waits")
	}
	a.end("mallory")
	a.end("alice")
	if want := []byte{100, maxAnsweringSender}; !slices.Equal(begun[maxAnsweringSender:], want) {
		t.Errorf("offers %v began, want %v", begun[maxAnsweringSender:], want)
	}
	for a.count() > 0 {
		a.end("mallory")
	}
	if len(begun) != maxAnsweringSender+maxWaitingSender+1 || len(a.waiting) != 0 || len(a.senders) != 0 {
		t.Errorf("%d offers have been answered, %d wait, %d senders are left", len(begun), len(a.waiting), len(a.senders))
	}
	for i := range maxAnswering + maxWaiting {
		if !add("", byte(i)) {
			t.Fatalf("offer %d of unknown senders was left in the mailbox", i)
		}
	}
	if add("", 255) || add("bob", 254) {
		t.Error("too many offers wait")
	}
}
