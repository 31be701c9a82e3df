package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/quicway/quicway/p2p"
)

// TestLink checks that a link dials again when its session has ended, and that connections which
// arrive meanwhile wait for it.
func TestLink(t *testing.T) {
	l := newLab(t)
	l.runs(func(ctx context.Context) { _ = Accept(ctx, l.conf(), l.y.Accept) })
	link := NewLink(l.conf(), func(ctx context.Context) (*p2p.Conn, error) { return l.x.Dial(ctx, l.y.ID(), nil) })
	sessions := make(chan *Session, 1)
	l.runs(func(ctx context.Context) { _ = link.Run(ctx, func(s *Session) { sessions <- s }) })
	addr := l.listen(Spec{Network: "tcp", Target: l.server(echo)}, l.conf(), link)
	for range 2 {
		c := l.client("tcp", addr)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if err := (<-sessions).conn.CloseWithError(0, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPermanentErrors checks which errors of the first attempt end a link.
func TestPermanentErrors(t *testing.T) {
	l := newLab(t)
	for _, want := range permanent {
		link := NewLink(l.conf(), func(context.Context) (*p2p.Conn, error) { return nil, fmt.Errorf("dial: %w", want) })
		if err := link.Run(t.Context(), nil); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	link := NewLink(l.conf(), func(context.Context) (*p2p.Conn, error) {
		if attempts++; attempts == 2 {
			cancel()
		}
		return nil, p2p.ErrOfferExpired
	})
	if err := link.Run(ctx, nil); !errors.Is(err, context.Canceled) || attempts != 2 {
		t.Errorf("%d attempts, %v", attempts, err)
	}
}

// TestHostileRequests checks the answers to lines that are no requests.
func TestHostileRequests(t *testing.T) {
	l := newLab(t)
	c, d := l.connect()
	s := NewSession(d, l.conf())
	l.runs(func(ctx context.Context) { _ = s.Run(ctx) })
	for line, want := range map[string]string{
		"\n":                                 `unknown request ""`,
		"connect\n":                          `unknown request "connect"`,
		"connect tcp localhost\n":            `"localhost" is not HOST:PORT`,
		"connect tcp localhost:http\n":       `"http" is not a port number`,
		"connect unix /tmp/x:1\n":            `unknown network "unix"`,
		"listen tcp :0\n":                    `unknown request "listen tcp :0"`,
		"listen tcp x y z\n":                 `unknown request "listen tcp x y z"`,
		"connect tcp \x1b2J:80\n":            "the host \"\\x1b2J\" has characters that no host has",
		"GET / HTTP/1.1\n":                   `unknown request "GET / HTTP/1.1"`,
		string(make([]byte, maxLine)) + "\n": "the line is too long",
	} {
		stream, err := c.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stream, line); err != nil {
			t.Fatal(err)
		}
		var refused *peerError
		if _, err := readAnswer(stream); !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("%q: got %v, want %s", line, err, want)
		}
	}
}

// TestEndedSession checks that a link gives nobody a session that has ended.
func TestEndedSession(t *testing.T) {
	l := newLab(t)
	c, _ := l.connect()
	link, s := NewLink(l.conf(), nil), NewSession(c, l.conf())
	if link.set(s); link.Now() != s {
		t.Error("the session is not given")
	}
	if err := c.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	if link.Now() != nil {
		t.Error("a session that has ended is given")
	}
}
