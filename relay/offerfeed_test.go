package relay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// feed is the answer to a request for all offers that come.
type feed struct {
	*lab
	body io.ReadCloser
	in   *bufio.Reader
}

// feed asks for the offers to the peer's key that come in a time.
func (p *peer) feed(wait, again time.Duration) *feed {
	p.lab.Helper()
	path := fmt.Sprintf(control.OffersPath+"?wait=%d&again=%d&stream=1", p.name(), wait/time.Second, again/time.Second)
	req, err := http.NewRequest(http.MethodGet, "https://relay"+path, nil)
	if err != nil {
		p.lab.Fatal(err)
	}
	resp, err := p.http.RoundTrip(req)
	if err != nil {
		p.lab.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != control.OffersType {
		p.lab.Fatalf("status %d, type %q", resp.StatusCode, got)
	}
	p.lab.Cleanup(func() { resp.Body.Close() })
	return &feed{p.lab, resp.Body, bufio.NewReader(resp.Body)}
}

// next waits for an offer, and returns its text.
func (f *feed) next() (string, error) {
	line, err := f.in.ReadBytes('\n')
	if err != nil {
		return "", err
	}
	var head control.Offered
	if err := json.Unmarshal(line, &head); err != nil {
		f.Fatal(err)
	}
	if head.Problem != nil {
		return "", head.Problem
	}
	if head.Number == 0 || head.Sender == "" {
		f.Errorf("%s has no number or no sender", line)
	}
	text := make([]byte, head.Size)
	_, err = io.ReadFull(f.in, text)
	return string(text), err
}

// want fails unless these offers come next.
func (f *feed) want(texts ...string) {
	f.Helper()
	for _, want := range texts {
		if got, err := f.next(); got != want || err != nil {
			f.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

// TestFeed checks that one request gets all offers that come in its time, at once, and again
// if they are not acknowledged.
func TestFeed(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		begin := time.Now()
		feed := bob.feed(50*time.Second, 20*time.Second)
		binary := "line\n\xff\x00" + string(make([]byte, 10_000))
		for _, text := range []string{"first", binary, "third"} {
			wantStatus(l, "put", alice.put(bob.name(), l.server.Token(), text), http.StatusNoContent)
		}
		feed.want("first", binary, "third")
		if took := time.Since(begin); took > time.Second {
			l.Errorf("it took %v", took)
		}
		feed.want("first", binary, "third", "first", binary, "third")
		if _, err := feed.next(); err != io.EOF {
			l.Errorf("at the end: %v", err)
		}
		if took := time.Since(begin).Round(time.Second); took != 50*time.Second {
			l.Errorf("the answer ended after %v", took)
		}
	})
}

// TestWaitingClientHoldsNoRequest checks that nothing is under way for a client that waits for
// events and offers, so that neither goroutines nor places for requests are taken.
func TestWaitingClientHoldsNoRequest(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		bob := l.peer()
		bob.listen()
		bob.feed(control.MaxWait, 0)
		c := bob.client()
		if n := len(c.requests) - (maxRequests - unauthenticatedRequests); n != 1 { // the next request
			l.Errorf("%d requests are under way", n)
		}
		if c.listening.Load() != 1 || c.errands.closed {
			l.Error("the client does not wait")
		}
		bob.quic.CloseWithError(0, "")
		time.Sleep(time.Second)
		synctest.Wait()
		if c.listening.Load() != 0 || !c.errands.closed {
			l.Error("the client still waits")
		}
		if n := len(l.server.mailbox.boxes); n != 0 {
			l.Errorf("%d boxes are left", n)
		}
	})
}

// client returns the server's side of a peer's connection.
func (p *peer) client() *client {
	p.lab.Helper()
	time.Sleep(time.Second) // until the relay knows it
	synctest.Wait()
	for _, l := range []*lobby{p.lab.server.control.lobbies.listeners, p.lab.server.control.lobbies.unauthenticated} {
		for _, all := range l.sites {
			for _, c := range all {
				if c.source == sourceOf(p.conn.Public().Addr()) {
					return c
				}
			}
		}
	}
	p.lab.Fatal("the relay does not know the peer")
	return nil
}

// TestFeedIsDisplaced checks that a later request for the same offers ends an earlier one,
// with an error if it comes on another connection.
func TestFeedIsDisplaced(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		bob := l.peer()
		first := bob.feed(control.MaxWait, 0)
		second := bob.feed(control.MaxWait, 0)
		if _, err := first.next(); err != io.EOF {
			l.Errorf("displaced on the same connection: %v", err)
		}
		third := bob.again().feed(control.MaxWait, 0)
		var problem *control.Problem
		if _, err := second.next(); !errors.As(err, &problem) || problem.Code != control.CodeConflict {
			l.Errorf("displaced on another connection: %v", err)
		}
		wantStatus(l, "put", l.peer().put(bob.name(), l.server.Token(), "hello"), http.StatusNoContent)
		third.want("hello")
	})
}

// TestFeedGivenUp checks that offers are handed out again at once if the client has given up the
// request, because they may not have arrived, or may not have been read. Those that were
// acknowledged are gone.
func TestFeedGivenUp(t *testing.T) {
	for _, again := range []time.Duration{0, 10 * time.Second} {
		for name, giveUp := range map[string]func(*feed){
			"before":    func(f *feed) { f.body.Close() },
			"displaced": func(*feed) {}, // the new request is here before the end of the old one
		} {
			t.Run(fmt.Sprint(name, again), func(t *testing.T) { testFeedGivenUp(t, again, giveUp) })
		}
	}
}

func testFeedGivenUp(t *testing.T, again time.Duration, giveUp func(*feed)) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		feed := bob.feed(control.MaxWait, again)
		for _, text := range []string{"first", "second", "third"} {
			wantStatus(l, "put", alice.put(bob.name(), l.server.Token(), text), http.StatusNoContent)
		}
		feed.want("first")
		l.server.mailbox.acknowledge(boxName{text: bob.name()}, 1)
		time.AfterFunc(time.Second-2*time.Millisecond, func() { alice.put(bob.name(), l.server.Token(), "fourth") })
		time.Sleep(time.Second)
		giveUp(feed) // the fourth is on its way
		begin := time.Now()
		bob.feed(control.MaxWait, again).want("second", "third", "fourth")
		if took := time.Since(begin); took > time.Second {
			l.Errorf("it took %v", took)
		}
	})
}

// TestFeedInFull checks that offers are not handed out again because the time of a request is
// over.
func TestFeedInFull(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		f := bob.feed(2*time.Second, 0)
		wantStatus(l, "put", alice.put(bob.name(), l.server.Token(), "once"), http.StatusNoContent)
		f.want("once")
		for range 2 {
			if text, err := f.next(); err != io.EOF {
				l.Errorf("got %q, %v", text, err)
			}
			f = bob.feed(2*time.Second, 0)
		}
	})
}

// TestFeedWithoutReader checks that a client that does not read holds up only its own offers,
// and one goroutine of the relay, however many offers come.
func TestFeedWithoutReader(t *testing.T) {
	runLab(t, &Config{MaxOfferSize: 1 << 20}, func(l *lab) {
		alice, bob, carol := l.peer(), l.peer(), l.peer()
		bob.feed(control.MaxWait, time.Second)
		text := string(make([]byte, 1<<20)) // more than the client's window
		wantStatus(l, "put", alice.put(bob.name(), l.server.Token(), text), http.StatusNoContent)
		for range 3 {
			wantStatus(l, "put", alice.put(bob.name(), l.server.Token(), "hello"), http.StatusNoContent)
			time.Sleep(5 * time.Second)
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			if n := bytes.Count(stacks, []byte("relay.(*offerFeed).hand(")); n != 1 {
				l.Errorf("%d goroutines hand out offers to a client that does not read, want 1", n)
			}
		}
		feed := carol.feed(control.MaxWait, 0)
		wantStatus(l, "put", alice.put(carol.name(), l.server.Token(), "hello"), http.StatusNoContent)
		feed.want("hello")
	})
}
