package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
)

func (p *peer) put(name, token, text string) int {
	status, _ := p.do("PUT", fmt.Sprintf(control.OffersPath, name), control.Bearer+token, []byte(text))
	return status
}

func (p *peer) take(name, token string, wait time.Duration) (int, string) {
	status, text := p.do("GET", fmt.Sprintf(control.OffersPath+"?wait=%d", name, wait/time.Second), control.Bearer+token, nil)
	return status, string(text)
}

// name is the name of offers to the peer's key.
func (p *peer) name() string {
	id := pki.CertificateKeyID(p.cert.Leaf)
	return id.String()
}

func TestMailbox(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		token := l.server.Token()
		for _, text := range []string{"first", "second"} {
			wantStatus(l, "put", alice.put(bob.name(), token, text), http.StatusNoContent)
		}
		for _, want := range []string{"first", "second"} {
			if status, got := bob.take(bob.name(), "", 0); status != http.StatusOK || got != want {
				l.Errorf("took %q, status %d, want %q", got, status, want)
			}
		}
		if status, got := bob.take(bob.name(), "", 0); status != http.StatusNoContent {
			l.Errorf("took %q, status %d, from an empty box", got, status)
		}
	})
}

// TestMailboxWaits checks that a client that asks before there is an offer gets the offer
// when it comes.
func TestMailboxWaits(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		start := time.Now()
		time.AfterFunc(20*time.Second, func() { alice.put(bob.name(), l.server.Token(), "at last") })
		status, got := bob.take(bob.name(), "", 30*time.Second)
		if status != http.StatusOK || got != "at last" || time.Since(start) > 21*time.Second {
			l.Errorf("took %q, status %d, after %v", got, status, time.Since(start))
		}
		start = time.Now()
		if status, _ := bob.take(bob.name(), "", time.Hour); status != http.StatusNoContent || time.Since(start) > control.MaxWait+time.Second {
			l.Errorf("status %d after %v", status, time.Since(start))
		}
	})
}

// TestOffersAreForTheirAddressee checks that only a client with the certificate of a key
// gets the offers to that key. An access token is not enough.
func TestOffersAreForTheirAddressee(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob, eve := l.peer(), l.peer(), l.peer()
		token := l.server.Token()
		wantStatus(l, "leave without token", eve.put(bob.name(), "", "spam"), http.StatusUnauthorized)
		wantStatus(l, "leave", alice.put(bob.name(), token, "secret"), http.StatusNoContent)
		if status, text := eve.take(bob.name(), token, 0); status != http.StatusForbidden || bytes.Contains([]byte(text), []byte("secret")) {
			l.Errorf("eve: %q, status %d", text, status)
		}
		if status, text := bob.take(bob.name(), "", 0); text != "secret" {
			l.Errorf("bob: %q, status %d", text, status)
		}
		// A client with the token may take offers under a free name.
		wantStatus(l, "leave", alice.put("lobby", token, "open"), http.StatusNoContent)
		if status, _ := eve.take("lobby", "", 0); status != http.StatusUnauthorized {
			l.Errorf("without token: status %d", status)
		}
		if _, text := eve.take("lobby", token, 0); text != "open" {
			l.Errorf("with token: %q", text)
		}
	})
}

// TestMailboxIsBounded checks the limits on offers in all, under one name, in bytes, and in
// time.
func TestMailboxIsBounded(t *testing.T) {
	conf := &Config{MaxOffers: 5, MaxOffersPerName: 3, MaxOfferSize: 100, OfferTTL: 30 * time.Second}
	runLab(t, conf, func(l *lab) {
		p, token := l.peer(), l.server.Token()
		wantStatus(l, "too large", p.put("a", token, string(make([]byte, 101))), http.StatusRequestEntityTooLarge)
		wantStatus(l, "empty", p.put("a", token, ""), http.StatusBadRequest)
		for i := range 3 {
			wantStatus(l, fmt.Sprint("a ", i), p.put("a", token, "x"), http.StatusNoContent)
		}
		wantStatus(l, "too many of a name", p.put("a", token, "x"), http.StatusTooManyRequests)
		for i := range 2 {
			wantStatus(l, fmt.Sprint("b ", i), p.put("b", token, "x"), http.StatusNoContent)
		}
		wantStatus(l, "too many", p.put("c", token, "x"), http.StatusTooManyRequests)
		if n := l.server.Stats().Offers; n != 5 {
			l.Errorf("%d offers wait, want 5", n)
		}
		time.Sleep(30*time.Second + 2*sweepPeriod)
		if n := l.server.Stats().Offers; n != 0 {
			l.Errorf("%d offers are left after they have expired", n)
		}
		wantStatus(l, "after their time", p.put("c", token, "x"), http.StatusNoContent)
		if n := len(l.server.mailbox.boxes); n != 1 {
			l.Errorf("%d boxes are kept for one offer", n)
		}
	})
}

// TestWaitersAreBounded checks the limit on requests that wait under one name.
func TestWaitersAreBounded(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p, token := l.peer(), l.server.Token()
		statuses := make(chan int, maxWaiters+1)
		for range maxWaiters + 1 {
			go func() {
				status, _ := p.take("a", token, 10*time.Second)
				statuses <- status
			}()
		}
		got := make(map[int]int)
		for range maxWaiters + 1 {
			got[<-statuses]++
		}
		if got[http.StatusNoContent] != maxWaiters || got[http.StatusTooManyRequests] != 1 {
			l.Errorf("statuses %v", got)
		}
	})
}

// TestTakerSupersedesItself checks that a peer that asks again on a new connection gets the
// offer there, and not on the old connection, which may be dead.
func TestTakerSupersedesItself(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		bob := l.peer()
		const requests = maxWaiters + 2
		var answers [requests]chan string
		for i := range requests {
			answers[i] = make(chan string, 1)
			go func() {
				_, text := bob.take(bob.name(), "", 60*time.Second)
				answers[i] <- text
			}()
			time.Sleep(time.Second)
		}
		wantStatus(l, "leave", l.peer().put(bob.name(), l.server.Token(), "hello"), http.StatusNoContent)
		for i, answer := range answers {
			want := ""
			if i == requests-1 {
				want = "hello"
			}
			if text := <-answer; text != want {
				l.Errorf("request %d of %d got %q, want %q", i+1, requests, text, want)
			}
		}
	})
}

// TestDisplacedTakerGetsError checks that a request on another connection with the same key
// ends a waiting one, which gets an error.
func TestDisplacedTakerGetsError(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		m := newMailbox(&Config{OfferTTL: time.Minute, MaxOffers: 1, MaxOffersPerName: 1, MaxOfferSize: 100})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first, second := make(chan error, 1), make(chan error, 1)
		for _, answer := range []chan error{first, second} {
			go func() {
				_, err := m.take(ctx, boxName{text: "bob"}, &client{}, 0)
				answer <- err
			}()
			time.Sleep(time.Second)
		}
		if err := <-first; !errors.Is(err, errDisplaced) {
			t.Errorf("displaced: %v", err)
		}
		cancel()
		if err := <-second; err != nil {
			t.Errorf("not displaced: %v", err)
		}
	})
}

// TestBodiesAreBounded checks that the server does not read bodies of requests that have
// none, and writes none to the disk.
func TestBodiesAreBounded(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		const mark = "mark"
		body := append([]byte("--"+mark+"\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n"), make([]byte, 40<<20)...)
		body = append(body, "\r\n--"+mark+"--\r\n"...)
		req, err := http.NewRequest("GET", "https://relay"+fmt.Sprintf(control.OffersPath, p.name()), bytes.NewReader(body))
		if err != nil {
			l.Fatal(err)
		}
		req.Header.Set("Content-Type", "multipart/form-data; boundary="+mark)
		if resp, err := p.http.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
		files, err := os.ReadDir(os.Getenv("TMPDIR"))
		if err != nil || len(files) != 0 {
			l.Errorf("files %v, %v", files, err)
		}
	})
}

func TestMailboxClosed(t *testing.T) {
	runLab(t, &Config{MaxOffers: -1}, func(l *lab) {
		if status := l.peer().put("a", l.server.Token(), "x"); status/100 != 4 {
			l.Errorf("status %d", status)
		}
	})
}

// byToken is an Authorize function that makes each token an account.
func byToken(_ context.Context, req AuthRequest) (string, error) {
	if req.Token == "" {
		return "", ErrUnauthorized
	}
	return req.Token, nil
}

// TestAccountDoesNotFillMailbox checks that in a full mailbox an account with fewer offers
// replaces one of the account that has most.
func TestAccountDoesNotFillMailbox(t *testing.T) {
	conf := &Config{Authorize: byToken, MaxOffers: 32, MaxOffersPerName: 8}
	runLab(t, conf, func(l *lab) {
		mallory, alice := l.peer(), l.peer()
		for i := range conf.MaxOffers {
			wantStatus(l, "within the bound", mallory.put(fmt.Sprint("name", i/8), "mallory", "junk"), http.StatusNoContent)
		}
		wantStatus(l, "beyond it", mallory.put("other", "mallory", "junk"), http.StatusTooManyRequests)
		for i := range conf.MaxOffers/2 - 1 {
			wantStatus(l, "another account", alice.put(fmt.Sprint("alice", i/8), "alice", "hello"), http.StatusNoContent)
		}
		wantStatus(l, "beyond half", alice.put("alice", "alice", "hello"), http.StatusNoContent)
		wantStatus(l, "more than the other", alice.put("alice", "alice", "hello"), http.StatusTooManyRequests)
		if n := l.server.Stats().Offers; n != conf.MaxOffers {
			l.Errorf("%d offers wait, want %d", n, conf.MaxOffers)
		}
	})
}

// TestMailboxBytesAreBounded checks that large offers use up the room of several.
func TestMailboxBytesAreBounded(t *testing.T) {
	runLab(t, &Config{MaxOffers: 8, MaxOfferSize: 16 << 10}, func(l *lab) {
		p, token := l.peer(), l.server.Token()
		large := string(make([]byte, 16<<10))
		for range 2 {
			wantStatus(l, "large", p.put("a", token, large), http.StatusNoContent)
		}
		wantStatus(l, "one more", p.put("a", token, large), http.StatusTooManyRequests)
	})
}

// TestSenderDoesNotFillName checks that senders with the same token cannot keep each other
// out of a box, and that their offers are handed out in turns.
func TestSenderDoesNotFillName(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		mallory, alice, bob := l.peer(), l.peer(), l.peer()
		token := l.server.Token()
		for mallory.put(bob.name(), token, "junk") == http.StatusNoContent {
		}
		if _, text := bob.take(bob.name(), "", 0); text != "junk" {
			l.Fatalf("took %q", text)
		}
		wantStatus(l, "alice", alice.put(bob.name(), token, "hello"), http.StatusNoContent)
		if _, text := bob.take(bob.name(), "", 0); text != "hello" {
			l.Errorf("took %q before alice's", text)
		}
	})
}

// TestNamesAreCanonical checks that all spellings of a name lead to the same box.
func TestNamesAreCanonical(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		token := l.server.Token()
		wantStatus(l, "key", alice.put(strings.ToUpper(bob.name()), token, "key"), http.StatusNoContent)
		if _, text := bob.take(bob.name(), "", 0); text != "key" {
			l.Errorf("by key: %q", text)
		}
		wantStatus(l, "text", alice.put("Lobby", token, "text"), http.StatusNoContent)
		if _, text := bob.take("lobbY", token, 0); text != "text" {
			l.Errorf("by text: %q", text)
		}
	})
}

// TestFreeNamesArePerAccount checks that accounts do not get the offers of each other under
// a free name.
func TestFreeNamesArePerAccount(t *testing.T) {
	runLab(t, &Config{Authorize: byToken}, func(l *lab) {
		alice, mallory := l.peer(), l.peer()
		wantStatus(l, "leave", alice.put("bob", "a", "secret"), http.StatusNoContent)
		if status, text := mallory.take("bob", "b", 0); status != http.StatusNoContent {
			l.Errorf("another tenant: %q, status %d", text, status)
		}
		status, _ := mallory.do("DELETE", fmt.Sprintf(control.OfferPath, "bob", 1), control.Bearer+"b", nil)
		wantStatus(l, "acknowledge another's", status, http.StatusNoContent)
		if _, text := alice.take("bob", "a", 0); text != "secret" {
			l.Errorf("the same tenant: %q", text)
		}
	})
}

// TestAuthorizeGetsPurposeAndName checks that Authorize gets the purpose of a token, and
// the name of the offer.
func TestAuthorizeGetsPurposeAndName(t *testing.T) {
	var asked []AuthRequest
	conf := &Config{Authorize: func(_ context.Context, req AuthRequest) (string, error) {
		req.Remote = netip.AddrPort{}
		asked = append(asked, req)
		return "", nil
	}}
	runLab(t, conf, func(l *lab) {
		p := l.peer()
		p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, "1")
		p.put("Lobby", "2", "x")
		p.take("LOBBY", "3", 0)
		p.take(p.name(), "4", 0) // by key
		p.put(strings.ToUpper(p.name()), "5", "x")
		want := []AuthRequest{
			{Token: "1", Purpose: OpenSession},
			{Token: "2", Purpose: LeaveOffer, Name: "lobby"},
			{Token: "3", Purpose: TakeOffer, Name: "lobby"},
			{Token: "5", Purpose: LeaveOffer, Name: p.name()},
		}
		if !slices.Equal(asked, want) {
			l.Errorf("asked %+v\nwant %+v", asked, want)
		}
	})
}

// again makes another connection with the same key, from the same host.
func (p *peer) again() *peer {
	twin := &peer{lab: p.lab, relay: p.relay, key: p.key, cert: p.cert}
	p.lab.peers++
	twin.conn = &dataConn{Conn: p.lab.net.Listen(fmt.Sprintf("198.51.100.%d:1000", p.lab.peers)), data: make(chan []byte, 16)}
	twin.reconnect()
	p.lab.Cleanup(twin.close)
	return twin
}

// TestOfferStaysUntilJoined checks that an offer is handed out to each connection of its
// addressee, because some may be dead, until its session is joined.
func TestOfferStaysUntilJoined(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		path := fmt.Sprintf(control.OffersPath+"?%s=%s", bob.name(), control.SessionParameter, session)
		status, _ := alice.do("PUT", path, control.Bearer+l.server.Token(), []byte("offer"))
		wantStatus(l, "leave", status, http.StatusNoContent)

		dead := bob.conn.Public()
		l.net.Filter(func(p nettest.Packet) bool { return p.To != dead })
		go func() { // a waiting request on a dead connection
			req, _ := http.NewRequest("GET", "https://relay"+fmt.Sprintf(control.OffersPath, bob.name()), nil)
			if resp, err := bob.http.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		}()
		time.Sleep(time.Second)
		l.net.Filter(nil)
		for range 2 {
			other := bob.again()
			if _, text := other.take(bob.name(), "", 0); text != "offer" {
				l.Errorf("another connection got %q", text)
			}
			if status, text := other.take(bob.name(), "", 0); status != http.StatusNoContent {
				l.Errorf("the same connection got %q again", text)
			}
			if _, text := other.do("GET", fmt.Sprintf(control.OffersPath+"?again=1&wait=30", bob.name()), "", nil); string(text) != "offer" {
				l.Errorf("the same connection, asking for offers again, got %q", text)
			}
		}
		bob.again().mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		if status, text := bob.again().take(bob.name(), "", 0); status != http.StatusNoContent {
			l.Errorf("got %q after the session has been joined", text)
		}
	})
}

// TestOfferStaysUntilAcknowledged checks that an offer stays until it is acknowledged, or
// its dialer ends its leg.
func TestOfferStaysUntilAcknowledged(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		wantStatus(l, "leave", alice.put(bob.name(), l.server.Token(), "offer"), http.StatusNoContent)
		synctest.Wait()
		number := l.server.mailbox.number
		for _, step := range []struct {
			who  *peer
			want int
		}{{alice, http.StatusForbidden}, {bob, http.StatusNoContent}} {
			status, _ := step.who.do("DELETE", fmt.Sprintf(control.OfferPath, bob.name(), number), "", nil)
			wantStatus(l, "acknowledge", status, step.want)
		}
		session := control.NewSessionID()
		alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token())
		path := fmt.Sprintf(control.OffersPath+"?%s=%s", bob.name(), control.SessionParameter, session)
		status, _ := alice.do("PUT", path, control.Bearer+l.server.Token(), []byte("of a dial given up"))
		wantStatus(l, "leave", status, http.StatusNoContent)
		wantStatus(l, "give up", alice.end(alice.key), http.StatusNoContent)
		if n := l.server.Stats().Offers; n != 0 {
			l.Errorf("%d offers stay", n)
		}
	})
}
