package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestFirstLine checks that the offer is read from the standard input, what follows it stays
// there, and an interrupt ends the read.
func TestFirstLine(t *testing.T) {
	for text, want := range map[string]string{"offer\nrest": "offer\n", "offer": "offer"} {
		line, rest, err := firstLine(t.Context(), strings.NewReader(text))
		if err != nil || line != want {
			t.Errorf("%q: got %q, %v", text, line, err)
			continue
		}
		if b, err := io.ReadAll(rest); err != nil || line+string(b) != text {
			t.Errorf("%q: the rest is %q, %v", text, b, err)
		}
	}
	if _, _, err := firstLine(t.Context(), strings.NewReader("")); !errors.Is(err, io.EOF) {
		t.Errorf("nothing: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent, typist := io.Pipe()
	defer typist.Close()
	if _, _, err := firstLine(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v", err)
	}
}
