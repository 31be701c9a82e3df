package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
)

// listen subscribes to the relay's events.
func (p *peer) listen() <-chan control.Event {
	p.lab.Helper()
	body := p.openEvents()
	events := make(chan control.Event, 100)
	go func() {
		defer body.Close()
		defer close(events)
		for lines := bufio.NewScanner(body); lines.Scan(); {
			var e control.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				p.lab.Errorf("event %q: %v", lines.Text(), err)
			}
			events <- e
		}
	}()
	return events
}

// openEvents asks for events, and returns the answer's body.
func (p *peer) openEvents() io.ReadCloser {
	p.lab.Helper()
	req, err := http.NewRequest("GET", "https://relay"+control.EventsPath, nil)
	if err != nil {
		p.lab.Fatal(err)
	}
	resp, err := p.http.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.lab.Fatalf("events: %v, %v", resp, err)
	}
	return resp.Body
}

// next returns the next event. It fails if there is none.
func (l *lab) next(events <-chan control.Event, want control.EventType) control.Event {
	l.Helper()
	select {
	case e := <-events:
		if e.Type != want {
			l.Fatalf("event %+v, want %q", e, want)
		}
		return e
	case <-time.After(5 * time.Minute):
		l.Fatalf("no event %q", want)
		return control.Event{}
	}
}

func TestEvents(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		events := alice.listen()
		if e := l.next(events, control.EventObserved); e.Observed != alice.conn.Public() {
			l.Errorf("observed %v, want %v", e.Observed, alice.conn.Public())
		}
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		if e := l.next(events, control.EventJoined); e.Session != session {
			l.Errorf("joined %v, want %v", e.Session, session)
		}
		l.net.Rebind(alice.conn.Conn, "203.0.113.5:5555")
		alice.refresh()
		if e := l.next(events, control.EventObserved); e.Observed != alice.conn.Public() || e.ObservedSeq != 2 {
			l.Errorf("observed %v as number %d, want %v, 2", e.Observed, e.ObservedSeq, alice.conn.Public())
		}
		wantStatus(l, "end", bob.end(bob.key), http.StatusNoContent)
		if e := l.next(events, control.EventGone); e.Session != session {
			l.Errorf("gone %v, want %v", e.Session, session)
		}
		status, _ := alice.do("GET", control.EventsPath, "", nil)
		wantStatus(l, "second subscription", status, http.StatusConflict)
	})
}

// TestInstance checks that a server tells each client the same ID of its own, and that another
// server has another one.
func TestInstance(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		a, b := l.next(alice.listen(), control.EventObserved), l.next(bob.listen(), control.EventObserved)
		r := alice.mustRegister(control.NewSessionID(), control.Register{Key: alice.key}, l.server.Token())
		other := newMembers(&Config{}).id
		if id := r.Instance; id == "" || a.Instance != id || b.Instance != id || other == id {
			l.Errorf("%q, %q and %q, of another server %q", id, a.Instance, b.Instance, other)
		}
	})
}

// TestExpiryNotifiesPeer checks that the other peer gets an event when a leg expires.
func TestExpiryNotifiesPeer(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		events := alice.listen()
		l.next(events, control.EventObserved)
		l.next(events, control.EventJoined)
		bob.conn.Unreachable(true)
		for range 3 {
			time.Sleep(time.Minute)
			alice.refresh()
		}
		l.next(events, control.EventGone)
	})
}

// TestLastPacketsArrive checks that packets to an ended leg are still forwarded for a
// while.
func TestLastPacketsArrive(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		wantStatus(l, "end", bob.end(bob.key), http.StatusNoContent)
		time.Sleep(linger / 2)
		last := bob.packet(0, "the end")
		alice.send(last)
		bob.want(last)
		time.Sleep(linger + 2*sweepPeriod)
		alice.send(last)
		bob.want()
		l.dropped(DropUnknownID, 1)
	})
}

// TestShutdown checks that a server that shuts down opens no sessions, notifies the peers,
// and goes on to forward for the sessions that exist.
func TestShutdown(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		events := alice.listen()
		l.next(events, control.EventObserved)
		l.next(events, control.EventJoined)
		done := make(chan error, 1)
		go func() { done <- l.server.Shutdown(context.Background()) }()
		l.next(events, control.EventShutdown)
		late := l.peer()
		status, _ := late.register(control.NewSessionID(), control.Register{Key: late.key}, l.server.Token())
		wantStatus(l, "new session", status, http.StatusServiceUnavailable)
		packet := bob.packet(0, "still there")
		alice.send(packet)
		bob.want(packet)
		select {
		case err := <-done:
			l.Fatalf("Shutdown returned %v with a session open", err)
		default:
		}
		alice.end(alice.key)
		bob.end(bob.key)
		if err := <-done; err != nil {
			l.Errorf("Shutdown: %v", err)
		}
	})
}

func TestShutdownTimeout(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.pair()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			l.Errorf("Shutdown: %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestClose(t *testing.T) {
	for name, served := range map[string]bool{"served": true, "not served": false} {
		t.Run(name, func(t *testing.T) {
			nettest.Bubble(t, func(t *testing.T) {
				network := nettest.New(1)
				server, err := New(nil, network.Listen(relayAddr))
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				if served {
					go func() { done <- server.Run(context.Background()) }()
					synctest.Wait()
					if err := server.Run(context.Background()); !errors.Is(err, ErrClosed) {
						t.Errorf("second Run: %v", err)
					}
				}
				for range 2 {
					if err := server.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				}
				if served {
					if err := <-done; !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
						t.Errorf("Run: %v, want %v", err, ErrClosed)
					}
				}
				if err := server.Run(context.Background()); !errors.Is(err, ErrClosed) {
					t.Errorf("Run after Close: %v, want %v", err, ErrClosed)
				}
				if err := server.Shutdown(context.Background()); err != nil {
					t.Errorf("Shutdown after Close: %v", err)
				}
				network.Listen(relayAddr) // panics if the conn is still open
			})
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		server, err := New(nil, nettest.New(1).Listen(relayAddr))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if err := server.Run(ctx); err != nil {
			t.Errorf("Run: %v, want nil after its context has ended", err)
		}
		if err := server.Run(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("Run again: %v, want %v", err, ErrClosed)
		}
	})
}

// unreadableConn is a conn whose reads fail.
type unreadableConn struct{ net.PacketConn }

func (unreadableConn) ReadFrom([]byte) (int, net.Addr, error) {
	return 0, nil, errors.New("reading is not allowed")
}

// TestRunReturnsSocketError checks that Run returns an error if a socket cannot be
// read.
func TestRunReturnsSocketError(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		server, err := New(nil, unreadableConn{nettest.New(1).Listen(relayAddr)})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(context.Background()); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v, want a read error", err)
		}
	})
}

func TestConfigRefused(t *testing.T) {
	for name, conf := range map[string]Config{
		"short secret":       {Secret: []byte("short")},
		"negative sessions":  {MaxSessions: -1},
		"endless sessions":   {MaxSessions: maxSessionsLimit + 1},
		"negative account":   {MaxSessionsPerAccount: -1},
		"negative listeners": {MaxListeners: -1},
		"short TTL":          {TTL: time.Second},
		"offer TTL":          {OfferTTL: -1},
		"offers per name":    {MaxOffersPerName: -1},
		"offer size":         {MaxOfferSize: -1},
		"shards":             {Shards: -1},
	} {
		if s, err := Listen(t.Context(), "udp", "127.0.0.1:0", &conf); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v, want %v", name, err, ErrConfig)
			s.Close()
		}
		network := nettest.New(1)
		if _, err := New(&conf, network.Listen(relayAddr)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v, want %v", name, err, ErrConfig)
		}
		network.Listen(relayAddr) // panics if the conn is still open
	}
}

// TestNewClosesSockets checks that the sockets of conns are closed after an error of New, wherever it
// comes from, and by Close: their address is free again.
func TestNewClosesSockets(t *testing.T) {
	for name, test := range map[string]struct {
		conf  Config
		twice bool // the same conn is given twice
		fails bool
	}{
		"config":      {conf: Config{MaxSessions: -1}, fails: true},
		"members":     {conf: Config{Members: []Member{{}}}, fails: true},
		"one conn":    {twice: true, fails: true},
		"no failure":  {},
		"not batched": {conf: Config{DisableOffload: true}},
	} {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conns := []net.PacketConn{conn}
		if test.twice {
			conns = append(conns, conn)
		}
		server, err := New(&test.conf, conns...)
		if (err != nil) != test.fails {
			t.Errorf("%s: got %v", name, err)
		}
		if err == nil {
			if err := server.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the conn is not closed: %v", name, err)
		}
		again, err := net.ListenPacket("udp", conn.LocalAddr().String())
		if err != nil {
			t.Errorf("%s: the socket is open: %v", name, err)
			continue
		}
		again.Close()
	}
}

// TestSecretDeterminesTokenAndPin checks that relays with the same secret have the same
// token and pin.
func TestSecretDeterminesTokenAndPin(t *testing.T) {
	make := func(secret []byte) *Server {
		s, err := New(&Config{Secret: secret}, nettest.New(1).Listen(relayAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	a, b, other := make(testSecret), make(testSecret), make(nil)
	if a.Token() != b.Token() || a.Pin() != b.Pin() || a.Token() == "" || a.Pin() == "" {
		t.Errorf("tokens %q and %q, pins %q and %q", a.Token(), b.Token(), a.Pin(), b.Pin())
	}
	if other.Token() == a.Token() || other.Pin() == a.Pin() {
		t.Error("another secret gives the same token or pin")
	}
}

// TestAuthorize checks that Authorize decides about tokens, and names the account of a
// session.
func TestAuthorize(t *testing.T) {
	conf := &Config{
		MaxSessionsPerAccount: 1,
		Authorize: func(_ context.Context, req AuthRequest) (string, error) {
			if req.Token == "alice" || req.Token == "bob" {
				return req.Token, nil
			}
			return "", ErrUnauthorized
		},
	}
	runLab(t, conf, func(l *lab) {
		p := l.peer()
		for _, test := range []struct {
			token string
			want  int
		}{{"eve", 401}, {"alice", 200}, {"alice", 429}, {"bob", 200}} {
			status, _ := p.register(control.NewSessionID(), control.Register{Key: cid.NewKey()}, test.token)
			wantStatus(l, test.token, status, test.want)
		}
	})
}
