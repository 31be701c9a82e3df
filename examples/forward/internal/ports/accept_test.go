package ports

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quicway/quicway/p2p"
)

// TestAccept checks that another program with the same identity does not end the service, and that
// an error which nothing cures does.
func TestAccept(t *testing.T) {
	l := newLab(t)
	failures := []error{p2p.ErrIdentityInUse, p2p.ErrUnauthorized}
	err := Accept(t.Context(), l.conf(), func(context.Context) (*p2p.Conn, error) {
		err := failures[0]
		failures = failures[1:]
		return nil, fmt.Errorf("accept: %w", err)
	})
	if !errors.Is(err, p2p.ErrUnauthorized) {
		t.Errorf("got %v", err)
	}
}

// TestOneDoubt checks that a peer which connects again and again does not have many goroutines wait
// for its silence on one session.
func TestOneDoubt(t *testing.T) {
	l := newLab(t)
	conn, _ := l.connect()
	s := NewSession(conn, l.conf())
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that a wait ends at once, and closes the connection
	s.doubted.Store(true)
	if s.leaveIfSilent(ctx); conn.Context().Err() != nil {
		t.Error("a second goroutine waits")
	}
	s.doubted.Store(false)
	if s.leaveIfSilent(ctx); conn.Context().Err() == nil {
		t.Error("the first goroutine does not wait")
	}
}
