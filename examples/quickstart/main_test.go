package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestInterrupt checks that an interrupt ends a transfer at once, and is why the program ends.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(2*time.Second, cancel)
	if err := run(ctx, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
