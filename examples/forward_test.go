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
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestForward loads a page of one process's host through two others, in both directions, also
// after the relay was killed and has come back.
func TestForward(t *testing.T) {
	s := build(t, "relay", "forward")
	page := strings.Repeat("quicway ", 10_000)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }))
	defer web.Close()
	target := strings.TrimPrefix(web.URL, "http://")

	at := fixedAddress(t)
	relay, url := s.start(nil, relayURL, "relay", "-listen", at, "-secret", filepath.Join(s.dir, "relay.key"))
	alice, id := s.start(new(bytes.Buffer), `^forward -to (\w+)`, "forward", "-relay", url, "-allow", "any")
	here, address := s.start(new(bytes.Buffer), `listening here.* address=(\S+)`, "forward", "-relay", url, "-to", id, "-L", "0:"+target)
	there, remote := s.start(new(bytes.Buffer), `the peer listens.* address=(\S+)`, "forward", "-relay", url, "-to", id, "-R", "0:"+target)
	s.wantPage("http://"+address, page)
	s.wantPage("http://"+remote, page)

	if err := relay.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	relay.wait()
	relay, again := s.start(nil, relayURL, "relay", "-listen", at, "-secret", filepath.Join(s.dir, "relay.key"))
	if again != url {
		t.Fatalf("the relay is %s, and was %s", again, url)
	}
	s.wantPage("http://"+address, page)
	t.Run("browser", func(t *testing.T) { wantInBrowser(t, "http://"+address, "quicway quicway") })

	for name, p := range map[string]*process{"alice": alice, "here": here, "there": there, "relay": relay} {
		p.interrupt()
		if code, rest := p.wait(); code != ended() {
			t.Errorf("%s: exit code %d after an interrupt: %s", name, code, rest)
		}
	}
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
