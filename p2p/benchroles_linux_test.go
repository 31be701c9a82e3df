package p2p

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/relay"
)

// TestBenchProcess is what the processes of BenchmarkProcesses run. Each prints one line, which
// the next ones get, and then answers commands with a time.
func TestBenchProcess(t *testing.T) {
	role := strings.Fields(os.Getenv(benchRole))
	if len(role) == 0 {
		t.Skip("only for BenchmarkProcesses")
	}
	var hello string
	var answer func(what []string) (time.Duration, error)
	switch host := net.ParseIP(role[1]); role[0] {
	case "relay":
		hello = benchRelay(t, host)
	case "to":
		hello = benchReceiver(t, host, role[2:])
	case "from":
		answer = newBenchSender(t, host, role[2:]).answer
	}
	fmt.Println(hello)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		took, err := cpuTime(t), error(nil)
		if lines.Text() != "cpu" {
			took, err = answer(strings.Fields(lines.Text()))
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(took)
	}
}

// benchRelay runs a relay, and, beside it, a program that copies TCP. It returns the relay's URL,
// and the address of that program, which gets the address to copy to in the first line.
func benchRelay(t *testing.T, host net.IP) string {
	t.Helper()
	server, err := relay.New(nil, benchSocket(t, host))
	if err != nil {
		t.Fatal(err)
	}
	go server.Run(t.Context())
	l, err := net.Listen("tcp4", net.JoinHostPort(host.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		target, err := l.Accept()
		if err != nil {
			return
		}
		if address, err := bufio.NewReader(target).ReadString('\n'); err == nil {
			copyTCP(l, strings.TrimSpace(address))
		}
	}()
	return server.URL("") + " " + l.Addr().String()
}

// benchMeeting is where the receiver is found.
type benchMeeting struct {
	Plain, TLS      string // addresses
	Direct, Relayed PeerID
}

// benchReceiver listens in all ways, and returns the meeting in JSON.
func benchReceiver(t *testing.T, host net.IP, args []string) string {
	t.Helper()
	ctx := t.Context()
	conf, anybody := benchConfig(t)
	transport := &quic.Transport{Conn: benchSocket(t, host), ConnectionIDLength: 12}
	plain, err := transport.Listen(conf.peerTLS(true, anybody), conf.quicConfig())
	if err != nil {
		t.Fatal(err)
	}
	go benchAccept(ctx, plain.Accept)
	direct, relayed := benchEndpoint(t, host, args[0], PreferDirect), benchEndpoint(t, host, args[0], RelayOnly)
	for _, e := range []*Endpoint{direct, relayed} {
		go benchAccept(ctx, func(ctx context.Context) (*quic.Conn, error) {
			c, err := e.Accept(ctx)
			if err != nil {
				return nil, err
			}
			return c.Conn, nil
		})
	}
	certs := &tls.Config{Certificates: []tls.Certificate{conf.Identity.cert}}
	l, err := tls.Listen("tcp4", net.JoinHostPort(host.String(), "0"), certs)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go benchReceive(c)
		}
	}()
	text, err := json.Marshal(benchMeeting{plain.Addr().String(), l.Addr().String(), direct.ID(), relayed.ID()})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// benchConfig returns the settings of package p2p for those who use quic-go alone.
func benchConfig(t *testing.T) (*Config, func(PeerID) error) {
	t.Helper()
	conf, err := (&Config{}).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return conf, func(PeerID) error { return nil }
}

// benchEndpoint makes an endpoint for one kind of path.
func benchEndpoint(t *testing.T, host net.IP, url string, policy PathPolicy) *Endpoint {
	t.Helper()
	at, err := ParseRelay(url)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEndpoint(&Config{Relay: at, Policy: policy, DisablePortMapping: true}, benchSocket(t, host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// benchAccept takes what comes on the streams of connections.
func benchAccept(ctx context.Context, accept func(context.Context) (*quic.Conn, error)) {
	for {
		c, err := accept(ctx)
		if err != nil {
			return
		}
		go func() {
			for s, err := c.AcceptStream(ctx); err == nil; s, err = c.AcceptStream(ctx) {
				go benchReceive(s)
			}
		}()
	}
}

// benchReceive takes blocks, each of which begins with its size, and answers each with a byte.
func benchReceive(s io.ReadWriter) {
	for {
		var size uint64
		if err := binary.Read(s, binary.BigEndian, &size); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, s, int64(size)); err != nil {
			return
		}
		if _, err := s.Write([]byte{1}); err != nil {
			return
		}
	}
}

// benchSender has a stream open in each way, and a dialer of each kind.
type benchSender struct {
	streams map[string]io.ReadWriter
	dials   map[string]func(context.Context) (*quic.Conn, error)
}

func newBenchSender(t *testing.T, host net.IP, args []string) *benchSender {
	t.Helper()
	url, copier := args[0], args[1]
	var to benchMeeting
	if err := json.Unmarshal([]byte(args[2]), &to); err != nil {
		t.Fatal(err)
	}
	s := &benchSender{streams: make(map[string]io.ReadWriter), dials: make(map[string]func(context.Context) (*quic.Conn, error))}
	s.dialPlain(t, host, to.Plain)
	s.dialPeer(t, "relayed", benchEndpoint(t, host, url, RelayOnly), to.Relayed)
	s.dialPeer(t, "direct", benchEndpoint(t, host, url, PreferDirect), to.Direct)
	for way, dial := range s.dials {
		c, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.streams[way], err = c.OpenStreamSync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	delete(s.dials, "direct")
	first, err := net.Dial("tcp4", copier)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := fmt.Fprintln(first, to.TLS); err != nil {
		t.Fatal(err)
	}
	for way, address := range map[string]string{"TLS": to.TLS, "TLS-relayed": copier} {
		if s.streams[way], err = tls.Dial("tcp4", address, &tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// dialPlain dials by quic-go alone, with the same certificates and settings.
func (s *benchSender) dialPlain(t *testing.T, host net.IP, to string) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	conf, anybody := benchConfig(t)
	transport := &quic.Transport{Conn: benchSocket(t, host), ConnectionIDLength: 12}
	s.dials["plain"] = func(ctx context.Context) (*quic.Conn, error) {
		return transport.Dial(ctx, addr, conf.peerTLS(false, anybody), conf.quicConfig())
	}
}

// dialPeer dials a peer, and waits for a direct path if there is to be one.
func (s *benchSender) dialPeer(t *testing.T, way string, e *Endpoint, to PeerID) {
	t.Helper()
	s.dials[way] = func(ctx context.Context) (*quic.Conn, error) {
		c, err := e.Dial(ctx, to, nil)
		if err != nil {
			return nil, err
		}
		if way == "direct" {
			for p := range c.PathEvents(ctx) {
				if p.Kind != Relayed {
					break
				}
			}
		}
		return c.Conn, nil
	}
}

// answer executes "stream WAY MIBS" or "dial WAY TIMES".
func (s *benchSender) answer(what []string) (time.Duration, error) {
	var n int
	if _, err := fmt.Sscan(what[2], &n); err != nil {
		return 0, err
	}
	start := time.Now()
	var err error
	switch what[0] {
	case "stream":
		err = benchSend(s.streams[what[1]], n)
	case "dial":
		err = benchDials(s.dials[what[1]], n)
	}
	return time.Since(start), err
}

// benchSend sends a block, and waits until it has arrived.
func benchSend(s io.ReadWriter, chunks int) error {
	if err := binary.Write(s, binary.BigEndian, uint64(chunks)*benchChunk); err != nil {
		return err
	}
	chunk := make([]byte, min(1, chunks)*benchChunk)
	for range chunks {
		if _, err := s.Write(chunk); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(s, make([]byte, 1))
	return err
}

// benchDial makes a connection, waits until the peer has answered on a stream, and ends it.
func benchDial(dial func(context.Context) (*quic.Conn, error)) error {
	c, err := dial(context.Background())
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	return benchSend(s, 0)
}

// benchDials makes and ends connections, eight at a time.
func benchDials(dial func(context.Context) (*quic.Conn, error), n int) error {
	todo := make(chan struct{}, n)
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			for range todo {
				if errs[i] = benchDial(dial); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
