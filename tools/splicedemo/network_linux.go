package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
)

// The network: client 10.77.1.2 — c1 relay s1 — 10.77.2.2 server.
const (
	relayAddress  = "10.77.1.1:8443"
	serverAddress = "10.77.2.2:0"
)

// build makes the hosts and connects them, by interfaces with the offloads of network cards.
func (n *network) build() {
	n.client, n.relay, n.server = nettest.NewHost(n), nettest.NewHost(n), nettest.NewHost(n)
	nettest.Cable(n.client, "c0", []string{"10.77.1.2/24"}, n.relay, "c1", []string{"10.77.1.1/24"})
	nettest.Cable(n.relay, "s1", []string{"10.77.2.1/24"}, n.server, "s0", []string{"10.77.2.2/24"})
	n.client.SendOffloads("c0")
	n.relay.SendOffloads("c1")
	n.relay.SendOffloads("s1")
	n.server.SendOffloads("s0")
	for _, h := range []*nettest.Host{n.client, n.relay, n.server} {
		h.Congestion("cubic")
	}
}

// server is a TLS server that sends the same number of bytes to each client.
type server struct {
	address string
	// ready gets a channel for each client. The server sends more than the head when that
	// channel is closed.
	ready chan (<-chan struct{})
	began chan time.Time // gets the time at which the bytes after a client's head began
}

// serve starts a server that sends size bytes.
func (n *network) serve(size int64) (*server, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		return nil, err
	}
	var l net.Listener
	if err := n.server.Run(func() (err error) {
		l, err = net.Listen("tcp", serverAddress)
		return err
	}); err != nil {
		return nil, err
	}
	s := &server{address: l.Addr().String(), ready: make(chan (<-chan struct{}), 1), began: make(chan time.Time, 1)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.send(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), size)
		}
	})
	n.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return s, nil
}

// send sends size bytes to a client. The client counts them, and says what is wrong.
func (s *server) send(conn *tls.Conn, size int64) {
	defer conn.Close()
	bytes := &pattern{}
	if _, err := io.CopyN(conn, bytes, head); err != nil {
		return
	}
	<-<-s.ready
	s.began <- time.Now()
	_, _ = io.CopyN(conn, bytes, size-head)
}

// pattern is a stream of bytes without end. Read as a writer, it checks them.
type pattern struct{ at int64 }

// patternLen is not a power of two, so that a piece that is missing shows.
const patternLen = 251 * 4099

var patternBytes = func() []byte {
	b := make([]byte, 2*patternLen)
	for i := range b {
		b[i] = byte(i % patternLen % 251)
	}
	return b
}()

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, patternBytes[p.at%patternLen:][:patternLen])
	p.at += int64(n)
	return n, nil
}

func (p *pattern) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		want := patternBytes[p.at%patternLen:][:min(len(rest), patternLen)]
		if !bytes.Equal(rest[:len(want)], want) {
			return 0, fmt.Errorf("the bytes from %d on are wrong", p.at)
		}
		rest = rest[len(want):]
		p.at += int64(len(want))
	}
	return len(b), nil
}

// download downloads size bytes, and checks them.
func (n *network) download(ctx context.Context, size int64) error {
	var c net.Conn
	if err := n.client.Run(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", relayAddress)
		return err
	}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	// The certificate is one that nobody knows; the bytes are checked.
	conn := tls.Client(c, &tls.Config{ServerName: "server.test", InsecureSkipVerify: true})
	defer conn.Close()
	got, err := io.Copy(&pattern{}, conn)
	if err == nil && got != size {
		err = fmt.Errorf("%d of %d bytes have arrived", got, size)
	}
	return err
}

// relayProcess is examples/sni, which runs.
type relayProcess struct {
	cmd  *exec.Cmd
	said chan struct{}   // closed once the relay has said what start waits for, or has ended
	sign string          // the line that said so
	out  strings.Builder // the last table
	read chan error      // has the result when all output is read
}

// start runs the relay on its host, and waits until it says that it relays. The relay's channel
// said is closed at the first line after that which contains sign.
func (n *network) start(ctx context.Context, sign, program string, args ...string) (*relayProcess, error) {
	r := &relayProcess{cmd: exec.CommandContext(ctx, program, args...), said: make(chan struct{}), read: make(chan error, 1)}
	r.cmd.Stderr = os.Stderr
	output, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.relay.Run(r.cmd.Start); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		return nil, errors.Join(errors.New("the relay says nothing"), lines.Err(), r.cmd.Wait())
	}
	go r.follow(lines, sign)
	return r, nil
}

// follow reads the lines of the relay until it ends.
func (r *relayProcess) follow(lines *bufio.Scanner, sign string) {
	ended := false
	for lines.Scan() {
		if ended {
			r.out.Reset()
		}
		fmt.Fprintln(&r.out, lines.Text())
		ended = lines.Text() == ""
		if r.sign == "" && strings.Contains(lines.Text(), sign) {
			r.sign = lines.Text()
			close(r.said)
		}
	}
	if r.sign == "" {
		close(r.said)
	}
	r.read <- lines.Err()
}

// stop ends the relay, and returns its last table, and its CPU time.
func (r *relayProcess) stop() (out string, cpu time.Duration, err error) {
	err = r.cmd.Process.Signal(os.Interrupt)
	err = errors.Join(err, <-r.read, r.cmd.Wait())
	state := r.cmd.ProcessState
	return r.out.String(), state.UserTime() + state.SystemTime(), err
}
