package sni

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// The programs here are those that people use: nginx behind the relay, and curl, openssl, h2load
// and wrk in front of it. They count their own failures.

// program returns the path of a program. It skips the test if the program is not installed,
// unless QUICWAY_REQUIRE_KERNEL is set.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err != nil && os.Getenv("QUICWAY_REQUIRE_KERNEL") != "":
		t.Fatalf("%s is not installed: %v", name, err)
	case err != nil:
		t.Skipf("%s is not installed: %v", name, err)
	}
	return path
}

// output runs a program to its end, and returns what it writes.
func output(t *testing.T, input []byte, path string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	var log bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(path), args, err, &log)
	}
	return out
}

// url returns where a client of the relay finds a file.
func url(s *Server, name, file string) string {
	return fmt.Sprintf("https://%s:%d/%s", name, s.Addr().Port(), file)
}

// curl returns the command curl for files of a server behind the relay.
func (n *nginx) curl(t *testing.T, s *Server, name, version string, args ...string) *exec.Cmd {
	common := []string{"--silent", "--show-error", "--fail", "--max-time", "60", version, "--cacert", n.dir + "/cert",
		"--resolve", fmt.Sprintf("%s:%d:%s", name, s.Addr().Port(), s.Addr().Addr())}
	return exec.CommandContext(t.Context(), program(t, "curl"), append(common, args...)...)
}

// get returns a file from behind the relay.
func (n *nginx) get(t *testing.T, s *Server, file string) (string, error) {
	out, err := n.curl(t, s, n.names[0], "--http1.1", url(s, n.names[0], file)).Output()
	return string(out), err
}

// TestPrograms checks requests by curl of both versions of HTTP to several names and servers, with
// small and large bodies in both directions.
func TestPrograms(t *testing.T) {
	one, two := serveNginx(t, "a.test", "x.b.test"), serveNginx(t, "c.test")
	s := newServer(t, &Config{Routes: routesTo("a.test", one.addr, "*.b.test", one.addr, "c.test", two.addr)})
	connections := uint64(0)
	for _, n := range []*nginx{one, two} {
		for _, name := range n.names {
			for _, version := range []string{"--http1.1", "--http2"} {
				small, large := url(s, name, "small"), url(s, name, "large")
				out, err := n.curl(t, s, name, version, small, large, small).Output() // one connection
				if want := slices.Concat(n.files["small"], n.files["large"], n.files["small"]); err != nil || !bytes.Equal(out, want) {
					t.Errorf("%s %s: got %d bytes, %v, want others, %d", name, version, len(out), err, len(want))
				}
				put := n.curl(t, s, name, version, "--upload-file", "-", url(s, name, "put/"+name+version))
				put.Stdin = bytes.NewReader(n.files["large"])
				if out, err := put.CombinedOutput(); err != nil {
					t.Errorf("%s %s: %v: %s", name, version, err, out)
				}
				if got, err := os.ReadFile(filepath.Join(n.dir, "put", name+version)); err != nil || !bytes.Equal(got, n.files["large"]) {
					t.Errorf("%s %s: %d bytes were put, %v, want others, %d", name, version, len(got), err, largeBody)
				}
				connections += 2
			}
		}
	}
	if got := s.Stats().Relayed; got != connections {
		t.Errorf("%d connections, want %d", got, connections)
	}
}

// TestProgramsOpenSSL checks which certificate and which protocol openssl gets behind each name.
func TestProgramsOpenSSL(t *testing.T) {
	openssl := program(t, "openssl")
	one, two := serveNginx(t, "a.test"), serveNginx(t, "b.test")
	s := newServer(t, &Config{Routes: routesTo("a.test", one.addr, "b.test", two.addr)})
	for _, n := range []*nginx{one, two} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			name := n.names[0]
			request := fmt.Appendf(nil, "GET /small HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
			out := output(t, request, openssl, "s_client", "-connect", s.Addr().String(), "-servername", name, "-verify_hostname", name,
				"-verify_return_error", "-CAfile", n.dir+"/cert", "-alpn", "h3,http/1.1", "-ign_eof", version)
			for _, want := range []string{"ALPN protocol: http/1.1", "Verify return code: 0 (ok)", string(n.files["small"])} {
				if !bytes.Contains(out, []byte(want)) {
					t.Errorf("%s %s: there is no %.30q in\n%s", name, version, want, out)
				}
			}
		}
	}
}

// TestProgramsLoad checks that all requests succeed of programs that make many of them, over few
// connections and over many.
func TestProgramsLoad(t *testing.T) {
	h2load, wrk := program(t, "h2load"), program(t, "wrk")
	one, two := serveNginx(t, "a.test"), serveNginx(t, "a.test")
	route := &Route{Names: []string{"a.test", "localhost"}, Upstreams: []string{one.addr, two.addr}}
	s := newServer(t, &Config{Routes: []*Route{route}})
	for _, load := range []struct {
		name, file      string
		requests, conns int
		flag            string
	}{
		{"HTTP/1.1, keep-alive", "small", 800, 8, "--h1"},
		{"HTTP/1.1, short connections", "small", 200, 200, "--h1"},
		{"HTTP/2", "small", 2000, 8, "-m10"},
		{"HTTP/2, large bodies", "large", 40, 4, "-m4"},
	} {
		before := s.Stats().Relayed
		out := output(t, nil, h2load, load.flag, "-n", strconv.Itoa(load.requests), "-c", strconv.Itoa(load.conns),
			"--connect-to="+s.Addr().String(), url(s, "a.test", load.file))
		for _, want := range []string{
			fmt.Sprintf("%[1]d done, %[1]d succeeded, 0 failed, 0 errored, 0 timeout", load.requests),
			fmt.Sprintf("%d 2xx, 0 3xx, 0 4xx, 0 5xx", load.requests),
		} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s: want %q, got\n%s", load.name, want, out)
			}
		}
		if got := s.Stats().Relayed - before; got != uint64(load.conns) {
			t.Errorf("%s: %d connections, want %d", load.name, got, load.conns)
		}
	}
	out := output(t, nil, wrk, "-t1", "-c8", "-d1s", url(s, "localhost", "small")) // it has no option for the address
	if regexp.MustCompile(`Socket errors|Non-2xx`).Match(out) || !regexp.MustCompile(`[1-9]\d* requests in`).Match(out) {
		t.Errorf("wrk: got\n%s", out)
	}
	if st := s.Stats(); st.DialFailures != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestProgramsReload checks that whoever reads from a server goes on when the server is reloaded,
// and sees an error when it is stopped, and that others have a server in each moment.
func TestProgramsReload(t *testing.T) {
	one, two := serveNginx(t, "a.test"), serveNginx(t, "b.test")
	s := newServer(t, &Config{Routes: routesTo("a.test", one.addr, "b.test", two.addr)})
	huge := make([]byte, hugeBody)
	_, _ = rand.NewChaCha8([32]byte{}).Read(huge) // never fails
	one.write("www/huge", huge)

	rest := one.read(t, s)
	one.reload("2")
	nettest.Eventually(t, "the new configuration", func() bool {
		out, err := one.get(t, s, "generation")
		if err != nil {
			t.Fatalf("during the reload: %v", err)
		}
		return out == "2"
	})
	if sum, err := rest(); err != nil || sum != sha256.Sum256(huge) {
		t.Errorf("the body has the hash %x: %v", sum, err)
	}

	rest = one.read(t, s)
	one.signal("stop")
	<-one.ended
	if _, err := rest(); err == nil {
		t.Error("a body was whole though its server was stopped")
	}
	if _, err := one.get(t, s, "small"); err == nil {
		t.Error("a server answers that was stopped")
	}
	if out, err := two.get(t, s, "small"); err != nil || out != string(two.files["small"]) {
		t.Errorf("from the other server: %d bytes, %v", len(out), err)
	}
	if st := s.Stats(); st.Failed[UpstreamFailed] != 1 || st.DialFailures != 1 {
		t.Errorf("got %+v", st)
	}
}

// read begins to read a body that is too large for all buffers. The function that it returns
// reads the rest.
func (n *nginx) read(t *testing.T, s *Server) (rest func() ([sha256.Size]byte, error)) {
	t.Helper()
	cmd := n.curl(t, s, n.names[0], "--http1.1", url(s, n.names[0], "huge"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	body := sha256.New()
	if _, err := io.CopyN(body, out, smallBody); err != nil {
		t.Fatal(err)
	}
	return func() (sum [sha256.Size]byte, err error) {
		_, err = io.Copy(body, out)
		return [sha256.Size]byte(body.Sum(nil)), errors.Join(err, cmd.Wait())
	}
}
