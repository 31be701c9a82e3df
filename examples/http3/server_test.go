package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/quota"
)

// start runs a server until the end of the test.
func start(t *testing.T, conf quota.Config, pages http.Handler) *server {
	t.Helper()
	s, err := newServer(&options{listen: "127.0.0.1:0", quota: conf}, pages)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

// frozen is a clock that does not go on, so that rates give nothing back, however slow this
// machine is.
func frozen() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}

// showProtocol answers with the protocol of the request.
var showProtocol = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<p>by %s</p>", r.Proto) })

func (s *server) url(path string) string { return fmt.Sprintf("https://localhost:%d%s", s.port, path) }

// trust is a configuration of a client that trusts the server.
func (s *server) trust() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.cert.Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// tcpClient returns a client that makes one connection, over TCP.
func (s *server) tcpClient(t *testing.T) *http.Client {
	tr := &http.Transport{TLSClientConfig: s.trust(), ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.tcp.Addr().String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// status makes a request, and returns the status and fields of the answer, and its body.
func status(t *testing.T, client *http.Client, method, url string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// TestOneQuota checks that requests and connections over TCP and UDP have one quota, and that
// HTTP/3 is announced over TCP.
func TestOneQuota(t *testing.T) {
	s := start(t, quota.Config{Now: frozen(), Source: quota.Limits{Connections: 2}}, showProtocol)
	h3 := &http3.Transport{TLSClientConfig: s.trust()}
	t.Cleanup(func() { h3.Close() })
	udp, tcp := &http.Client{Transport: h3}, s.tcpClient(t)
	udpURL := fmt.Sprintf("https://127.0.0.1:%d", s.port)
	if code, _, body := status(t, udp, "GET", udpURL+"/"); code != http.StatusOK || body != "<p>by HTTP/3.0</p>" {
		t.Errorf("over UDP: status %d, %q", code, body)
	}
	code, header, body := status(t, tcp, "GET", s.url("/"))
	if want := fmt.Sprintf(`h3=":%d"`, s.port); code != http.StatusOK || body != "<p>by HTTP/2.0</p>" || !strings.HasPrefix(header.Get("Alt-Svc"), want) {
		t.Errorf("over TCP: status %d, %q, %v", code, body, header)
	}
	if n := s.controller.Stats().Connections; n != 2 {
		t.Errorf("%d connections are counted, want one over each", n)
	}
	if _, err := s.tcpClient(t).Get(s.url("/")); err == nil {
		t.Error("a third connection was served")
	}
	for i, tc := range []struct {
		client *http.Client
		url    string
		want   int
	}{
		{udp, udpURL, 401}, {tcp, s.url(""), 401}, {udp, udpURL, 401}, {tcp, s.url(""), 401}, {udp, udpURL, 401},
		{tcp, s.url(""), 429}, {udp, udpURL, 429},
	} {
		code, header, _ := status(t, tc.client, "POST", tc.url+"/login")
		if code != tc.want || (header.Get("Retry-After") != "") != (code == 429) {
			t.Errorf("password %d: status %d, want %d, Retry-After %q", i, code, tc.want, header.Get("Retry-After"))
		}
	}
}

// TestSlotsOfTCP checks that a TCP connection gives its place back, and that a denied source
// loses its connections.
func TestSlotsOfTCP(t *testing.T) {
	s := start(t, quota.Config{Source: quota.Limits{Connections: 1}}, showProtocol)
	for range 3 {
		client := s.tcpClient(t)
		status(t, client, "GET", s.url("/"))
		client.CloseIdleConnections()
		nettest.Eventually(t, "the place is free", func() bool { return s.controller.Stats().Connections == 0 })
	}
	client := s.tcpClient(t)
	status(t, client, "GET", s.url("/"))
	prefix, err := quota.ParsePrefix("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.controller.Add(quota.Entry{List: quota.DenyList, Prefix: prefix, End: true}); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the connection is closed", func() bool { return s.controller.Stats().Connections == 0 })
	if _, err := client.Get(s.url("/")); err == nil {
		t.Error("served though denied")
	}
}

// TestStop checks that the server ends with TCP while it waits for a request over UDP, which it lets
// end.
func TestStop(t *testing.T) {
	entered, release, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s, err := newServer(&options{listen: "127.0.0.1:0"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	}))
	if err != nil {
		t.Fatal(err)
	}
	s.grace = time.Minute
	s.http.RegisterOnShutdown(func() { close(stopped) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	h3 := &http3.Transport{TLSClientConfig: s.trust()}
	go func() {
		defer close(release)
		<-entered
		cancel()
		select {
		case <-stopped:
		case <-time.After(20 * time.Second):
			t.Error("the server accepts TCP connections")
		}
	}()
	if code, _, _ := status(t, &http.Client{Transport: h3}, "GET", fmt.Sprintf("https://127.0.0.1:%d/", s.port)); code != http.StatusOK {
		t.Errorf("status %d", code)
	}
	if err := errors.Join(h3.Close(), <-done); err != nil {
		t.Error(err)
	}
}

// TestErrors checks the errors about invalid options, and that nothing stays open.
func TestErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	none := filepath.Join(t.TempDir(), "none")
	for want, o := range map[string]*options{
		"-listen: ":             {listen: taken.Addr().String()},
		"address nonsense":      {listen: "nonsense"},
		"open " + none:          {listen: "127.0.0.1:0", cert: none, key: none},
		"-cert and -key":        {listen: "127.0.0.1:0", cert: none},
		"need each other":       {listen: "127.0.0.1:0", key: none},
		"invalid configuration": {listen: "127.0.0.1:0", quota: quota.Config{MaxSources: -1}},
	} {
		if _, err := newServer(o, showProtocol); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	for want, args := range map[string][]string{"-root: ": nil, `"stray"`: {"stray"}} {
		if err := run(t.Context(), &options{}, none, args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
