package examples_test

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// TestHTTP3Debug checks that the program http3 writes the secrets of its connections, by UDP and by
// TCP, and a qlog file of the one by UDP.
func TestHTTP3Debug(t *testing.T) {
	s := newScene(t)
	s.keys = filepath.Join(s.dir, "keys")
	p, url := s.start(new(bytes.Buffer), `^serving (https://\S+)`, "http3", "-listen", "127.0.0.1:0", "-qlog", "qlog")
	insecure := &tls.Config{InsecureSkipVerify: true}
	udp := &http3.Transport{TLSClientConfig: insecure}
	for i, transport := range []http.RoundTripper{udp, &http.Transport{TLSClientConfig: insecure, DisableKeepAlives: true}} {
		request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, strings.Replace(url, "localhost", "127.0.0.1", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		text, err := os.ReadFile(s.keys)
		if n := strings.Count(string(text), "SERVER_TRAFFIC_SECRET_0 "); n != i+1 {
			t.Errorf("%d connections with secrets, want %d: %v", n, i+1, err)
		}
	}
	udp.Close()
	p.interrupt()
	if code, rest := p.wait(); code != ended() {
		t.Errorf("exit code %d: %s", code, rest)
	}
	if runtime.GOOS == "windows" {
		return // killed, so that the qlog file is not complete
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "qlog", "*_server.sqlog"))
	if len(files) != 1 || err != nil {
		t.Fatalf("qlog: %q, %v", files, err)
	}
	if text, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(text), "packet_sent") {
		t.Errorf("qlog: %d bytes, %v", len(text), err)
	}
}
