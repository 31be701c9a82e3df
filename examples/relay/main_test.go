package main

import (
	"errors"
	"net"
	"testing"

	"github.com/quicway/quicway/relay"
)

// TestFailedListener checks that a relay does not go on without a socket that it was told to have.
func TestFailedListener(t *testing.T) {
	server, err := relay.Listen(t.Context(), "udp", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go serveTCP(server, l, failed)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), server, failed, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want the listener's error", err)
	}
}
