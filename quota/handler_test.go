package quota

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestRetryAfter checks that Retry-After is in seconds, rounded up, and that requests
// without QUIC are limited.
func TestRetryAfter(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{RequestRate: 0.4, RequestBurst: 1}})
	h := c.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i, want := range []string{"", "3"} {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.RemoteAddr = fmt.Sprintf("192.0.2.1:%d", i)
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Retry-After"); got != want || (w.Code == http.StatusTooManyRequests) != (want != "") {
			t.Errorf("request %d: status %d, Retry-After %q, want %q", i, w.Code, got, want)
		}
	}
}

// TestRequestAddress checks that a request is charged to its RemoteAddr, in whatever form
// that is written, and not to an address in its fields.
func TestRequestAddress(t *testing.T) {
	for remote, source := range map[string]string{
		"192.0.2.1:80":          "192.0.2.1/32",
		"[::ffff:192.0.2.1]:80": "192.0.2.1/32",
		"[2001:db8::1]:80":      "2001:db8::/64",
		"[fe80::1%eth0]:80":     "fe80::/64",
		"@":                     "",
		"":                      "",
		"192.0.2.1":             "",
	} {
		c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{RequestRate: 1e-6, RequestBurst: 1}})
		h := c.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for i := range 2 {
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			r.RemoteAddr = remote
			r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
			r.Header.Set("Forwarded", fmt.Sprintf("for=198.51.100.%d", i))
			h.ServeHTTP(w, r)
			want := http.StatusOK
			if i > 0 && source != "" {
				want = http.StatusTooManyRequests
			}
			if w.Code != want {
				t.Errorf("request %d from %q: status %d, want %d", i, remote, w.Code, want)
			}
		}
		top := c.Top(2)
		if source == "" && len(top) > 0 || source != "" && (len(top) != 1 || top[0].Source != netip.MustParsePrefix(source)) {
			t.Errorf("requests from %q are charged to %+v", remote, top)
		}
	}
}

// TestDeniedRequests checks that requests from denied addresses are refused where there is
// no packet filter, as over TCP.
func TestDeniedRequests(t *testing.T) {
	for _, dry := range []bool{false, true} {
		c := mustNew(t, &Config{DryRun: dry})
		if err := c.Deny(netip.MustParsePrefix("192.0.2.0/24"), 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := c.Allow(netip.MustParsePrefix("192.0.2.9/32"), 0, ""); err != nil {
			t.Fatal(err)
		}
		h := c.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for from, want := range map[string]int{"192.0.2.1:1": http.StatusForbidden, "192.0.2.9:1": http.StatusOK, "198.51.100.1:1": http.StatusOK} {
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			r.RemoteAddr = from
			h.ServeHTTP(w, r)
			if dry {
				want = http.StatusOK
			}
			if w.Code != want {
				t.Errorf("dry run %v, from %s: status %d, want %d", dry, from, w.Code, want)
			}
		}
		if s := c.Stats(); s.Refused[Denied] != 1 || c.Top(1)[0].Refused != 1 {
			t.Errorf("dry run %v: counted %+v", dry, s)
		}
	}
}

// TestRequestRates checks the rates of a connection and of its source.
func TestRequestRates(t *testing.T) {
	conf := &Config{ConnectionRequestRate: 1, ConnectionRequestBurst: 3, Source: Limits{RequestRate: 1, RequestBurst: 5}}
	runLab(t, conf, func(l *lab) {
		served := func(c *client, n int) (ok int, wait string) {
			conn, err := c.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			h3 := (&http3.Transport{}).NewClientConn(conn)
			for range n {
				resp, err := getOn(context.Background(), h3)
				switch {
				case err != nil:
					t.Error(err)
				case resp.StatusCode == http.StatusOK:
					ok++
				case resp.StatusCode == http.StatusTooManyRequests:
					wait = resp.Header.Get("Retry-After")
				}
			}
			return ok, wait
		}
		l.net.Set(nettest.Conditions{})
		a, b := l.client("198.51.100.1"), l.client("198.51.100.1")
		defer a.close()
		defer b.close()
		if ok, wait := served(a, 6); ok != 3 || wait != "1" {
			t.Errorf("the connection made %d requests, and was asked to wait %q s, want 3 and 1", ok, wait)
		}
		if ok, wait := served(b, 6); ok != 2 || wait != "1" {
			t.Errorf("another of the source made %d requests, and was asked to wait %q s, want 2 and 1", ok, wait)
		}
	})
}
