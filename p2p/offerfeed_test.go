package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/control"
)

// answers is a relay that gives these answers to one request after the other.
type answers []*http.Response

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	next := (*a)[0]
	*a = (*a)[1:]
	next.Request = r
	return next, nil
}

// answer makes an answer with a body.
func answer(status int, header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

// lasting makes an answer with several offers.
func lasting(offers ...string) *http.Response {
	return answer(http.StatusOK, http.Header{"Content-Type": {control.OffersType}}, strings.Join(offers, ""))
}

// offered is an offer in such an answer.
func offered(number int, text string) string {
	return fmt.Sprintf("{\"number\":%d,\"sender\":\"s\",\"size\":%d}\n%s", number, len(text), text)
}

// TestTakeOffer checks what is taken for an offer in the answers of relays, also of those that
// hand out one offer for each request.
func TestTakeOffer(t *testing.T) {
	long := strings.Repeat("x", 2*maxOfferText)
	one := http.Header{}
	one.Set(control.OfferField, "7")
	one.Set(control.SenderField, "s")
	for name, test := range map[string]struct {
		answers answers
		numbers []uint64 // of the offers; zero: none came in time
		err     error    // after them
	}{
		"one for each request": {answers{answer(200, one, "a"), answer(204, nil, ""), answer(200, one, "b")}, []uint64{7, 0, 7}, nil},
		"without a number":     {answers{answer(200, http.Header{}, "a")}, []uint64{0}, nil},
		"several":              {answers{lasting(offered(1, "a"), offered(2, "b\n{")), lasting(offered(3, "c"))}, []uint64{1, 2, 3}, nil},
		"none":                 {answers{lasting(), lasting()}, []uint64{0, 0}, nil},
		"none any more":        {answers{lasting(offered(1, "a")), lasting()}, []uint64{1, 0}, nil},
		"too long":             {answers{lasting(offered(1, long), offered(2, "b"))}, []uint64{1, 2}, nil},
		"refused":              {answers{lasting(offered(1, "a"), "{\"problem\":{\"code\":\"conflict\"}}\n")}, []uint64{1}, ErrRelayRefused},
		"refused at once":      {answers{answer(409, nil, `{"code":"conflict"}`)}, nil, ErrRelayRefused},
		"cut in the line":      {answers{lasting("{\"numb")}, nil, ErrRelayUnreachable},
		"cut in the text":      {answers{lasting(offered(1, "hello")[:38])}, nil, ErrRelayUnreachable},
		"no JSON":              {answers{lasting("hello\n")}, nil, ErrRelayUnreachable},
		"negative":             {answers{lasting("{\"size\":-1}\n")}, nil, ErrRelayUnreachable},
		"huge":                 {answers{lasting("{\"size\":1000000000000}\n")}, nil, ErrRelayUnreachable},
		"endless line":         {answers{lasting(strings.Repeat(" ", 3*control.MaxBody))}, nil, ErrRelayUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			conn := &controlConn{http: &test.answers}
			for _, want := range test.numbers {
				o, err := conn.takeOffer(context.Background(), "bob", "")
				if err != nil {
					t.Fatal(err)
				}
				if o == nil {
					o = &mailboxOffer{}
				}
				if o.number != want || len(o.text) > maxOfferText+1 || want > 0 && o.sender != "s" {
					t.Errorf("got number %d from %q with %d bytes, want %d", o.number, o.sender, len(o.text), want)
				}
			}
			if test.err == nil {
				return
			}
			if o, err := conn.takeOffer(context.Background(), "bob", ""); o != nil || !errors.Is(err, test.err) || conn.feed != nil {
				t.Errorf("got %v, %v, want %v", o, err, test.err)
			}
		})
	}
}

// FuzzOfferFeed checks that no answer leads to more than its offers.
func FuzzOfferFeed(f *testing.F) {
	f.Add(offered(1, "a") + offered(2, "b"))
	f.Add("{\"size\":5}\nab")
	f.Add("{\"problem\":{\"code\":\"conflict\"}}\n")
	f.Fuzz(func(t *testing.T, body string) {
		conn := &controlConn{http: &answers{lasting(body), lasting()}}
		for left := len(body); ; {
			o, err := conn.takeOffer(context.Background(), "bob", "")
			if o == nil || err != nil {
				return
			}
			if left -= len(o.text) + 1; left < 0 {
				t.Fatal("more offers than bytes")
			}
		}
	})
}
