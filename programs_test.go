package quicway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/p2p"
)

// runPrograms runs the whole programs in the documents, and checks that there is a test for each
// of them.
func (m *outside) runPrograms(names []string) {
	tests := map[string]func(s *stage){
		"chat": (*stage).chat, "site": (*stage).site, "health": (*stage).health, "web": (*stage).web,
		"accounts": (*stage).accounts, "exporter": (*stage).exporter, "names": (*stage).names,
	}
	if err := m.goTool("build", "-o", m.dir+"/bin/", "./programs/..."); err != nil {
		m.Fatal(err)
	}
	for name := range tests {
		if !slices.Contains(names, name) {
			m.Errorf("no document has the program %s", name)
		}
	}
	m.write("folder/page.html", []byte("a page"))
	for _, name := range names {
		m.Run(name, func(t *testing.T) {
			if tests[name] == nil {
				t.Fatal("no test")
			}
			tests[name](&stage{t, m.dir})
		})
	}
}

// stage is where programs run: in a folder with a page.
type stage struct {
	*testing.T
	dir string
}

// chat has Alice and Bob write to each other, until Alice leaves.
func (s *stage) chat() {
	relay := s.relay()
	alice, id := s.start("chat", relay)
	bob := s.run("chat", relay, id)
	alice.write("hello\n")
	if got := bob.line(); got != "hello" {
		s.Errorf("bob has read %q", got)
	}
	bob.write("how are you?\n")
	if got := alice.line(); got != "how are you?" {
		s.Errorf("alice has read %q", got)
	}
	alice.write("bye")
	alice.input.Close()
	if got := bob.all() + alice.all(); got != "bye" {
		s.Errorf("at last they have read %q", got)
	}
}

func (s *stage) site() {
	relay := s.relay()
	_, id := s.start("site", relay)
	if client, page := s.start("site", relay, id, "page.html"); page+client.all() != "a page" {
		s.Errorf("the page is %q", page)
	}
}

func (s *stage) health() {
	relay := s.relay()
	_, id := s.start("health", relay)
	if _, status := s.start("health", relay, id); status != "SERVING" {
		s.Errorf("the status is %q", status)
	}
}

// accounts checks that a guessed token opens no session. The others use the relay with a right one.
func (s *stage) accounts() {
	at, err := p2p.ParseRelay(strings.Replace(s.relay(), "alices-secret", "guessed", 1))
	if err != nil {
		s.Fatal(err)
	}
	endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: at})
	if err != nil {
		s.Fatal(err)
	}
	defer endpoint.Close()
	_, err = endpoint.Dial(s.Context(), endpoint.ID(), nil)
	if err == nil || !strings.Contains(err.Error(), "token") {
		s.Errorf("with a wrong token: %v", err)
	}
}

func (s *stage) web() {
	identity, err := p2p.NewIdentity()
	if err != nil {
		s.Fatal(err)
	}
	cert := identity.Certificate()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		s.Fatal(err)
	}
	m := &outside{s.T, s.dir}
	m.write("folder/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	m.write("folder/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	_, address := s.start("web", "127.0.0.1:0", "cert.pem", "key.pem")
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	s.Cleanup(func() { transport.Close() })
	if page := s.get(&http.Client{Transport: transport}, "https://"+address+"/page.html"); page != "a page" {
		s.Errorf("the page is %q", page)
	}
}

func (s *stage) exporter() {
	p, relay := s.start("exporter", "127.0.0.1:0", "127.0.0.1:0")
	if _, err := p2p.ParseRelay(relay); err != nil {
		s.Error(err)
	}
	if page := s.get(http.DefaultClient, p.line()); !strings.Contains(page, "\nquicway_relay_sessions 0\n") {
		s.Errorf("the page has no sessions: %s", page)
	}
}

func (s *stage) names() {
	p, first := s.start("names", "../examples/monitor/testdata/sample.pcap")
	if got := first + "\n" + p.all(); !strings.Contains(got, "192.0.2.1:50000 moving.example\n") {
		s.Errorf("the names are %q", got)
	}
}

// relay runs the relay with accounts, and returns its URL for Alice.
func (s *stage) relay() string {
	s.Helper()
	_, url := s.start("accounts", "127.0.0.1:0")
	return strings.Replace(url, "quicway://", "quicway://alices-secret@", 1)
}

// get gets a page.
func (s *stage) get(client *http.Client, url string) string {
	s.Helper()
	resp, err := client.Get(url)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return string(page)
}

// running is a program that runs.
type running struct {
	*stage
	input io.WriteCloser
	out   *bufio.Reader
}

// start starts a program, and returns the first line that it prints.
func (s *stage) start(name string, args ...string) (p *running, first string) {
	s.Helper()
	p = s.run(name, args...)
	return p, p.line()
}

// run starts a program, which the end of the test kills.
func (s *stage) run(name string, args ...string) *running {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), filepath.Join(s.dir, "bin", name), args...)
	cmd.Dir = filepath.Join(s.dir, "folder")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	input, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.Failed() {
			s.Logf("%s %q: %s", name, args, &errs)
		}
	})
	return &running{s, input, bufio.NewReader(out)}
}

// write writes to the program.
func (p *running) write(text string) {
	p.Helper()
	if _, err := io.WriteString(p.input, text); err != nil {
		p.Error(err)
	}
}

// line returns the next line that the program prints, or the rest if there is no other.
func (p *running) line() string {
	p.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		p.Errorf("no line: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// all returns what the program prints until it ends.
func (p *running) all() string {
	p.Helper()
	text, err := io.ReadAll(p.out)
	if err != nil {
		p.Error(err)
	}
	return string(text)
}
