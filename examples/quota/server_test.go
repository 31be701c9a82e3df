package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/quota"
)

// started is a server that runs until the end of the test.
type started struct {
	*testing.T
	*server
	base string // of the URLs for changing lists
	end  func() (table string)
}

func start(t *testing.T, o *options) *started {
	t.Helper()
	o.listen, o.admin = "127.0.0.1:0", "127.0.0.1:0"
	s, err := newServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	done := make(chan error, 1)
	base := "http://" + s.admin.Addr().String()
	go func() { done <- s.run(ctx, &out) }()
	end := sync.OnceValue(func() string {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		return out.String()
	})
	t.Cleanup(func() { end() })
	return &started{t, s, base, end}
}

// ask makes a request for the lists, and checks the status of the answer.
func (s *started) ask(method, path string, wantStatus int, header ...string) string {
	s.Helper()
	r, err := http.NewRequest(method, s.base+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r.Host = r.Header.Get("Host")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != wantStatus {
		s.Errorf("%s %s: status %d, want %d: %s, %v", method, path, resp.StatusCode, wantStatus, body, err)
	}
	return string(body)
}

// dial makes a connection and a request on it.
func (s *started) dial(ctx context.Context) (*quic.Conn, error) {
	conn, err := quic.DialAddr(ctx, s.conn.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, nil)
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() { conn.CloseWithError(0, "") })
	return conn, s.echo(ctx, conn)
}

func (s *started) echo(ctx context.Context, conn *quic.Conn) error {
	r, err := http.NewRequestWithContext(ctx, "POST", "https://server/", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	resp, err := (&http3.Transport{}).NewClientConn(conn).RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		return fmt.Errorf("echo of %q, %w", body, err)
	}
	return nil
}

// storm dials many connections at once, and returns those that it has got.
func (s *started) storm(n int) (got []*quic.Conn) {
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if conn, err := s.dial(ctx); err == nil {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, conn)
			}
		})
	}
	wg.Wait()
	return got
}

// TestAttack checks a client that dials too many connections: it gets its quota, appears in
// the table, is denied, and is allowed.
func TestAttack(t *testing.T) {
	s := start(t, &options{quota: quota.Config{Source: quota.Limits{Connections: 3}}})
	got := s.storm(20)
	if len(got) != 3 {
		t.Fatalf("it has %d connections, want 3", len(got))
	}
	s.ask("POST", "/deny?prefix=127.0.0.0/8&ttl=1h&reason=abuse&end=1", http.StatusNoContent)
	for _, conn := range got {
		<-conn.Context().Done()
	}
	var seen struct {
		Stats   quota.Stats
		Top     []quota.SourceStats
		Entries []struct {
			List, Prefix, Reason string
			End                  bool
		}
	}
	if err := json.Unmarshal([]byte(s.ask("GET", "/", http.StatusOK)), &seen); err != nil {
		t.Fatal(err)
	}
	if seen.Stats.Admitted < 3 || seen.Stats.Denied != 1 || len(seen.Top) != 1 || seen.Top[0].Refused+seen.Top[0].Dropped == 0 {
		t.Errorf("it shows %+v", seen)
	}
	if len(seen.Entries) != 1 || seen.Entries[0].Prefix != "127.0.0.0/8" || seen.Entries[0].Reason != "abuse" || !seen.Entries[0].End {
		t.Errorf("it shows the entries %+v", seen.Entries)
	}
	s.ask("DELETE", "/deny?prefix=127.0.0.0/8", http.StatusNoContent)
	s.ask("POST", "/allow?prefix=127.0.0.1", http.StatusNoContent)
	if got := s.storm(6); len(got) != 6 {
		t.Errorf("it is allowed, and has %d connections, want 6", len(got))
	}
	if table := s.end(); !strings.Contains(table, "127.0.0.1/32") || !strings.Contains(table, "0 denied and 1 allowed") || !strings.Contains(table, "userspace") {
		t.Errorf("at the end it shows\n%s", table)
	}
}

// TestAdmin checks requests for the lists, and that those from elsewhere are refused.
func TestAdmin(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("deny 192.0.2.0/24\n")
	s := start(t, &options{list: list, every: time.Hour})
	for _, tc := range []struct {
		method, path string
		status       int
		header       []string
	}{
		{"GET", "/", http.StatusOK, nil},
		{"GET", "/", http.StatusOK, []string{"Host", "localhost:1"}},
		{"GET", "/", http.StatusOK, []string{"Host", "[::1]"}},
		{"GET", "/", http.StatusMisdirectedRequest, []string{"Host", "rebound.example"}},
		{"GET", "/", http.StatusMisdirectedRequest, []string{"Host", "192.0.2.1:8080"}},
		{"POST", "/deny?prefix=0.0.0.0/0", http.StatusForbidden, []string{"Origin", "https://elsewhere.example"}},
		{"POST", "/deny?prefix=0.0.0.0/0", http.StatusForbidden, []string{"Sec-Fetch-Site", "cross-site"}},
		{"DELETE", "/deny?prefix=192.0.2.0/24", http.StatusForbidden, []string{"Origin", "null"}},
		{"GET", "/deny?prefix=0.0.0.0/0", http.StatusMethodNotAllowed, nil},
		{"POST", "/block?prefix=192.0.2.1", http.StatusBadRequest, nil},
		{"POST", "/deny", http.StatusBadRequest, nil},
		{"POST", "/deny?prefix=nonsense", http.StatusBadRequest, nil},
		{"POST", "/deny?prefix=192.0.2.1&ttl=-1s", http.StatusBadRequest, nil},
		{"DELETE", "/deny?prefix=198.51.100.0/24", http.StatusNotFound, nil},
		{"DELETE", "/allow?prefix=192.0.2.0/24", http.StatusNotFound, nil},
		{"POST", "/reload", http.StatusNoContent, nil},
	} {
		s.Run(fmt.Sprint(tc.method, tc.path, tc.header), func(t *testing.T) {
			s := *s
			s.T = t
			s.ask(tc.method, tc.path, tc.status, tc.header...)
		})
	}
	write("deny 192.0.2.0/24\nnonsense\n")
	if got := s.ask("POST", "/reload", http.StatusBadRequest); !strings.Contains(got, "line 2") {
		t.Errorf("got %q, want the line", got)
	}
	if got := s.ask("GET", "/", http.StatusOK); !strings.Contains(got, `"192.0.2.0/24"`) || !strings.Contains(got, list) {
		t.Errorf("the list that was loaded before is gone: %s", got)
	}
}

// TestFiles checks that files are served, and that requests have a quota.
func TestFiles(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "page"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, &options{root: root, quota: quota.Config{ConnectionRequestRate: 1e-6, ConnectionRequestBurst: 2}})
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.Close()
	for i, want := range []int{http.StatusOK, http.StatusNotFound, http.StatusTooManyRequests} {
		resp, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("https://%s/%s", s.conn.LocalAddr(), []string{"page", "none", "page"}[i]))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || err != nil || want == http.StatusOK && string(body) != "a file" {
			t.Errorf("request %d: status %d, want %d: %q, %v", i, resp.StatusCode, want, body, err)
		}
	}
}

// TestBadUse checks the errors about invalid options, and that nothing stays open.
func TestBadUse(t *testing.T) {
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, o := range map[string]*options{
		taken.LocalAddr().String():   {listen: taken.LocalAddr().String()},
		"-listen: ":                  {listen: "nonsense"},
		"-admin: ":                   {listen: "127.0.0.1:0", admin: "nonsense"},
		"-admin 0.0.0.0:0 is not on": {listen: "127.0.0.1:0", admin: "0.0.0.0:0"},
		"-admin :0 is not on":        {listen: "127.0.0.1:0", admin: ":0"},
		"-root: ":                    {listen: "127.0.0.1:0", root: "no such directory"},
		"load list: ":                {listen: "127.0.0.1:0", list: "no such file"},
		"open no such certificate":   {listen: "127.0.0.1:0", cert: "no such certificate", key: "no such key"},
		"-cert and -key need":        {listen: "127.0.0.1:0", key: "no such key"},
		"invalid configuration":      {listen: "127.0.0.1:0", quota: quota.Config{MaxSources: -1}},
	} {
		if s, err := newServer(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want an error with %q", s, err, want)
		}
	}
}
