package sni

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestListenerClosed checks that Run returns when somebody else closes the listener.
func TestListenerClosed(t *testing.T) {
	onWays(t, inLoop, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(nil, l.(*net.TCPListener))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.short = *testLimits
		ran := make(chan error, 1)
		go func() { ran <- s.Run(t.Context()) }()
		dial(t, s)
		nettest.Eventually(t, "accepted", func() bool { return s.Stats().Accepted == 1 })
		l.Close()
		select {
		case err := <-ran:
			if !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
		case <-time.After(patience):
			t.Error("Run goes on")
		}
	})
}
