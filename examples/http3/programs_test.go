package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/quota"
)

// The clients here are those of others: Chromium, and gtlsclient, which is the client of ngtcp2.

// patience is how long such a program may take.
const patience = time.Minute

// page tries to log in six times, and shows the protocol and the answers.
const page = `<!DOCTYPE html><p id=out></p><script>
const out = ["by " + performance.getEntriesByType("navigation")[0].nextHopProtocol];
for (let i = 0; i < 6; i++) {
	const request = new XMLHttpRequest();
	request.open("POST", "/login", false);
	request.send();
	out.push(request.status + (request.getResponseHeader("Retry-After") ? " later" : ""));
}
document.getElementById("out").textContent = out.join(", ");
</script>`

// TestChromium checks that a browser loads a page by HTTP/3, and sees the limit of a route.
func TestChromium(t *testing.T) {
	s := start(t, quota.Config{Now: frozen()}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	}))
	got := nettest.DumpDOM(t, s.url("/"), "--enable-quic", fmt.Sprintf("--origin-to-force-quic-on=localhost:%d", s.port),
		"--host-resolver-rules=MAP localhost 127.0.0.1", "--ignore-certificate-errors-spki-list="+keyHash(s.cert))
	if want := ">by h3, 401, 401, 401, 401, 401, 429 later<"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if st := s.controller.Stats(); st.Admitted == 0 || st.Refused[quota.RouteRate] != 1 {
		t.Errorf("counted %+v", st)
	}
}

// gtlsclient makes requests with the client of ngtcp2, and returns the statuses and the
// values of Retry-After, and how it ended.
func (s *server) gtlsclient(t *testing.T, method, path string, n int) (statuses, waits []string, err error) {
	t.Helper()
	program, err := exec.LookPath("gtlsclient")
	if err != nil {
		nettest.Missing(t, "gtlsclient is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--exit-on-all-streams-close", "--no-quic-dump", "--http-method="+method,
		fmt.Sprintf("--nstreams=%d", n), "--timeout=30s", "127.0.0.1", fmt.Sprint(s.port), s.url(path))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\[(:status|retry-after): (\w+)\]`).FindAllSubmatch(out, -1) {
		if string(m[1]) == ":status" {
			statuses = append(statuses, string(m[2]))
		} else {
			waits = append(waits, string(m[2]))
		}
	}
	slices.Sort(statuses)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("gtlsclient: %v\n%s", err, out)
		}
	})
	return statuses, waits, err
}

// TestNgtcp2 checks requests of ngtcp2's client: within the quota, with a Retry, beyond the
// limit of a route, and when the source has no room for another connection.
func TestNgtcp2(t *testing.T) {
	for name, conf := range map[string]quota.Config{"plain": {Now: frozen()}, "retry": {Now: frozen(), AlwaysRetry: true}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, conf, showProtocol)
			if got, _, err := s.gtlsclient(t, "GET", "/", 5); err != nil || strings.Join(got, " ") != "200 200 200 200 200" {
				t.Errorf("got %q, %v, want five pages", got, err)
			}
			got, waits, err := s.gtlsclient(t, "POST", "/login", 7)
			if err != nil || strings.Join(got, " ") != "401 401 401 401 401 429 429" || strings.Join(waits, " ") != "10 10" {
				t.Errorf("got %q, Retry-After %q, %v, want five and two refusals", got, waits, err)
			}
			if st := s.controller.Stats(); st.Admitted != 2 || (st.Retried > 0) != conf.AlwaysRetry {
				t.Errorf("counted %+v", st)
			}
		})
	}
	t.Run("no room", func(t *testing.T) {
		s := start(t, quota.Config{Source: quota.Limits{Connections: 1}}, showProtocol)
		client := s.tcpClient(t)
		status(t, client, "GET", s.url("/")) // keeps its connection
		if got, _, _ := s.gtlsclient(t, "GET", "/", 1); len(got) != 0 || s.controller.Stats().Refused[quota.Connections] == 0 {
			t.Errorf("got %q, counted %+v, want a refusal", got, s.controller.Stats())
		}
		client.CloseIdleConnections()
		nettest.Eventually(t, "there is room", func() bool { return s.controller.Stats().Connections == 0 })
		if got, _, err := s.gtlsclient(t, "GET", "/", 1); err != nil || len(got) != 1 || got[0] != "200" {
			t.Errorf("got %q, %v, want a page", got, err)
		}
	})
}
