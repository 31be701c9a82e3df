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

// serve starts a TLS server that sends bytes to each client, and returns its address.
func (n *network) serve(size int64) (string, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		return "", err
	}
	var l net.Listener
	if err := n.server.Run(func() (err error) {
		l, err = net.Listen("tcp", serverAddress)
		return err
	}); err != nil {
		return "", err
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				defer conn.Close()
				_, _ = io.CopyN(conn, &pattern{}, size) // the client counts
			})
		}
	})
	n.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String(), nil
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

// download downloads all bytes, and returns how long that took.
func (n *network) download(ctx context.Context, size int64) (time.Duration, error) {
	began := time.Now()
	var c net.Conn
	if err := n.client.Run(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", relayAddress)
		return err
	}); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	// The certificate is one that nobody knows; the bytes are checked.
	conn := tls.Client(c, &tls.Config{ServerName: "server.test", InsecureSkipVerify: true})
	defer conn.Close()
	got, err := io.Copy(&pattern{}, conn)
	if err == nil && got != size {
		err = fmt.Errorf("%d of %d bytes have arrived", got, size)
	}
	return time.Since(began).Round(time.Millisecond), err
}

// relayProcess is examples/sni, which runs.
type relayProcess struct {
	cmd    *exec.Cmd
	output *bufio.Reader
}

// start runs the relay on its host, and waits until it says that it relays.
func (n *network) start(ctx context.Context, program string, args ...string) (*relayProcess, error) {
	r := &relayProcess{cmd: exec.CommandContext(ctx, program, args...)}
	r.cmd.Stderr = os.Stderr
	output, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.output = bufio.NewReader(output)
	if err := n.relay.Run(r.cmd.Start); err != nil {
		return nil, err
	}
	if _, err := r.output.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("the relay says nothing: %w", err), r.cmd.Wait())
	}
	return r, nil
}

// stop ends the relay, and returns what it has printed, and its CPU time.
func (r *relayProcess) stop() (out string, cpu time.Duration, err error) {
	err = r.cmd.Process.Signal(os.Interrupt)
	text, readErr := io.ReadAll(r.output)
	err = errors.Join(err, readErr, r.cmd.Wait())
	state := r.cmd.ProcessState
	return string(text), state.UserTime() + state.SystemTime(), err
}
