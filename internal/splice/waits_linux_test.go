package splice

import (
	"errors"
	"testing"
)

// TestWaitsAfterClose checks that who waits for a takeover or a way back gets its result also when the
// program was closed meanwhile: the sockets of a way back would be lost with another one.
func TestWaitsAfterClose(t *testing.T) {
	t.Parallel()
	k := &keeper{done: make(chan struct{})}
	close(k.done)
	for range 100 {
		ended := &taking{result: make(chan error, 1)}
		ended.result <- nil
		if err := k.await(t.Context(), ended); err != nil {
			t.Fatalf("a takeover that has ended: %v", err)
		}
		if err := k.wait(t.Context(), arrived(nil)); err != nil {
			t.Fatalf("a way back that has ended: %v", err)
		}
	}
	if err := k.await(t.Context(), &taking{result: make(chan error, 1)}); !errors.Is(err, ErrClosed) {
		t.Errorf("a takeover: %v, want %v", err, ErrClosed)
	}
	if err := k.wait(t.Context(), &wayBack{done: make(chan struct{})}); !errors.Is(err, ErrClosed) {
		t.Errorf("a way back: %v, want %v", err, ErrClosed)
	}
}
