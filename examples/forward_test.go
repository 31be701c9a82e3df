package examples_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// slowPages is a web server with pages of which the second half comes when the test wants.
type slowPages struct {
	asked   chan string   // paths of such pages, of which the first half was sent
	release chan struct{} // closed when the second half may be sent
}

const (
	slowPage   = "the first half, and the second half"
	slowScript = `/* the first half */ document.getElementById("out").textContent = "the second half"`
)

var page = strings.Repeat("quicway ", 10_000)

func (s *slowPages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/browser":
		_, _ = io.WriteString(w, `<!DOCTYPE html><p id=out></p><script src=/slow.js></script>`)
	case "/slow.js":
		w.Header().Set("Content-Type", "text/javascript")
		s.serve(w, r, slowScript)
	case "/slow":
		s.serve(w, r, slowPage)
	default:
		_, _ = io.WriteString(w, page)
	}
}

func (s *slowPages) serve(w http.ResponseWriter, r *http.Request, text string) {
	_, _ = io.WriteString(w, text[:20])
	w.(http.Flusher).Flush()
	s.asked <- r.URL.Path
	select {
	case <-s.release:
	case <-r.Context().Done():
	}
	_, _ = io.WriteString(w, text[20:])
}

// TestForward loads pages of one process's host through two others, in both directions, while the
// relay is killed and comes back, and after it. Then a process that has connected is killed and comes
// back, and then the one that it has connected to.
func TestForward(t *testing.T) {
	s := newScene(t)
	pages := &slowPages{make(chan string, 10), make(chan struct{})}
	web := httptest.NewServer(pages)
	defer web.Close()
	target := strings.TrimPrefix(web.URL, "http://")

	at := fixedAddress(t)
	relay, url := s.start(nil, relayURL, "relay", "-listen", at, "-secret", filepath.Join(s.dir, "relay.key"))
	accept := []string{"-relay", url, "-identity", "alice.key", "-allow", "any", "-relay-only"}
	alice, id := s.start(new(bytes.Buffer), `^forward -to (\w+)`, "forward", accept...)
	here, address := s.start(new(bytes.Buffer), `listening here.* address=(\S+)`, "forward", "-relay", url, "-to", id, "-L", "0:"+target, "-relay-only")
	connect := []string{"-relay", url, "-identity", "carol.key", "-to", id, "-R", fixedPort(t) + ":" + target}
	there, remote := s.start(new(bytes.Buffer), `the peer listens.* address=(\S+)`, "forward", connect...)
	s.wantPage("http://"+address, page)
	s.wantPage("http://"+remote, page)

	finish := s.beginPages(pages, "http://"+address, "http://"+remote)
	if err := relay.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	relay.wait()
	relay, again := s.start(nil, relayURL, "relay", "-listen", at, "-secret", filepath.Join(s.dir, "relay.key"))
	if again != url {
		t.Fatalf("the relay is %s, and was %s", again, url)
	}
	finish()
	s.wantPage("http://"+address, page)
	s.wantPage("http://"+remote, page)

	if err := there.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	there.wait()
	there, _ = s.start(new(bytes.Buffer), `the peer listens.* address=(\S+)`, "forward", connect...)
	s.wantPage("http://"+remote, page)

	if err := alice.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, rest := alice.wait(); !strings.Contains(rest, "connected again") {
		t.Errorf("the port of a process that was killed has become free only with time: %s", rest)
	}
	alice, _ = s.start(new(bytes.Buffer), `^forward -to (\w+)`, "forward", accept...)
	s.wantPage("http://"+address, page)
	s.wantPage("http://"+remote, page)

	for name, p := range map[string]*process{"alice": alice, "here": here, "there": there, "relay": relay} {
		p.interrupt()
		code, rest := p.wait()
		if code != ended() {
			t.Errorf("%s: exit code %d after an interrupt: %s", name, code, rest)
		}
		if noticed := strings.Contains(rest, "the peer does not answer"); runtime.GOOS != "windows" && noticed != (p == here || p == there) {
			t.Errorf("%s has noticed a peer that was killed: %v: %s", name, noticed, rest)
		}
	}
}

// beginPages begins to load pages: one from each server, and one of the first server in a browser.
// finish waits until they are loaded.
func (s *scene) beginPages(pages *slowPages, urls ...string) (finish func()) {
	s.Helper()
	var loading sync.WaitGroup
	for _, url := range urls {
		loading.Go(func() {
			if got, err := get(http.DefaultClient, url+"/slow"); got != slowPage {
				s.Errorf("%s: %q, %v", url, got, err)
			}
		})
	}
	browser := make(chan struct{})
	loading.Go(func() {
		defer close(browser)
		s.Run("browser", func(t *testing.T) { wantInBrowser(t, urls[0]+"/browser", ">the second half<") })
	})
	for range urls {
		s.awaitPage(pages, nil)
	}
	s.awaitPage(pages, browser)
	return func() {
		close(pages.release)
		loading.Wait()
	}
}

// awaitPage waits until the first half of a page was sent, or there is no browser.
func (s *scene) awaitPage(pages *slowPages, ended <-chan struct{}) {
	s.Helper()
	select {
	case <-pages.asked:
	case <-ended:
	case <-s.ctx.Done():
		s.Fatal("a page is not asked for")
	}
}

// fixedPort is the port of fixedAddress.
func fixedPort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(fixedAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// fixedAddress returns an address that is free for UDP and TCP, and stays free: systems give ports
// above 32768 to programs that ask for any.
func fixedAddress(t *testing.T) string {
	t.Helper()
	const first, n = 20_000, 10_000
	for i := range n {
		at := fmt.Sprintf("127.0.0.1:%d", first+(os.Getpid()+i)%n)
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		tcp, err := net.Listen("tcp", at)
		if err := errors.Join(err, udp.Close()); err != nil {
			continue
		}
		if err := tcp.Close(); err != nil {
			t.Fatal(err)
		}
		return at
	}
	t.Fatal("no port is free")
	return ""
}

// wantInBrowser loads a page in a browser.
func wantInBrowser(t *testing.T, url, want string) {
	t.Helper()
	if got := nettest.DumpDOM(t, url); !strings.Contains(got, want) {
		t.Errorf("%.200q", got)
	}
}

// wantPage loads a page, again and again while the server cannot be reached.
func (s *scene) wantPage(url, want string) {
	s.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		got, err := get(client, url)
		if got == want {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatalf("%s: %d bytes of %d, %v", url, len(got), len(want), err)
		}
	}
}

func get(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return string(b), err
}
