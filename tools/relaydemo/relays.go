//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

// relayVariable has the configuration of a relay, in the environment of its process.
const relayVariable = "QUICWAY_DEMO_RELAY"

// drainTime is how long a relay that is stopped waits for the peers.
const drainTime = 30 * time.Second

// relayConfig is the configuration of a relay's process.
type relayConfig struct {
	Listen, Name string
	Secret       []byte
	Members      []relay.Member
	Verbose      bool
}

// isRelay says whether this process is that of a relay.
func isRelay() bool { return os.Getenv(relayVariable) != "" }

// serveRelay runs the relay of this process, until SIGTERM comes or the parent ends.
func serveRelay() error {
	var c relayConfig
	if err := json.Unmarshal([]byte(os.Getenv(relayVariable)), &c); err != nil {
		return err
	}
	conf := &relay.Config{Secret: c.Secret, Name: c.Name, Members: c.Members, Shards: 1}
	if c.Verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("at", c.Name)
	}
	server, err := relay.Listen(context.Background(), "udp4", c.Listen, conf)
	if err != nil {
		return err
	}
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		return errors.Join(err, server.Close())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent holds the other end
		os.Exit(1)
	}()
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	stopped := make(chan error, 1)
	go func() {
		<-terminated
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	}()
	fmt.Println(p2p.Relay{Addr: c.Listen, Token: server.Token(), Pin: pin})
	if err := server.Run(context.Background()); !errors.Is(err, relay.ErrClosed) {
		return err
	}
	return <-stopped
}

// relays are processes, each of which is a relay.
type relays struct {
	all     []*member
	secret  []byte
	verbose bool
}

// member is one of them.
type member struct {
	name, addr string
	url        p2p.Relay
	process    *exec.Cmd // nil: not running
	stdin      io.Closer
}

func startRelays(n int, verbose bool) (*relays, error) {
	r := &relays{secret: make([]byte, 32), verbose: verbose}
	rand.Read(r.secret)
	for i := range n {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		r.all = append(r.all, &member{name: string(rune('a' + i)), addr: addr})
	}
	for _, m := range r.all {
		if err := r.start(m); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

// freeAddr returns a UDP address that is free now.
func freeAddr() (string, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return conn.LocalAddr().String(), conn.Close()
}

// start starts a relay, and waits until it serves.
func (r *relays) start(m *member) error {
	conf := relayConfig{Listen: m.addr, Name: m.name, Secret: r.secret, Verbose: r.verbose}
	for _, other := range r.all {
		conf.Members = append(conf.Members, relay.Member{Name: other.name, Addr: other.addr})
	}
	b, err := json.Marshal(&conf)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), relayVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if m.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.process = cmd
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("relay %s does not start: %w", m.name, err)
	}
	m.url, err = p2p.ParseRelay(line[:len(line)-1])
	return err
}

// kill kills a relay, which leaves it no time to tell anybody.
func (r *relays) kill(m *member) error {
	if m.process == nil {
		return nil
	}
	err := m.process.Process.Kill()
	_ = m.process.Wait() // reports the signal
	_ = m.stdin.Close()
	m.process = nil
	return err
}

// stop stops a relay, and waits until the peers have left it and it has ended.
func (r *relays) stop(m *member) error {
	if err := m.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := m.process.Wait()
	_ = m.stdin.Close()
	m.process = nil
	if err != nil {
		return fmt.Errorf("stop relay %s: %w", m.name, err)
	}
	return nil
}

func (r *relays) close() {
	for _, m := range r.all {
		_ = r.kill(m)
	}
}

// urls returns what peers need.
func (r *relays) urls() (all []p2p.Relay) {
	for _, m := range r.all {
		all = append(all, m.url)
	}
	return all
}

// at returns the relay at an address, or nil.
func (r *relays) at(addr string) *member {
	for _, m := range r.all {
		if m.addr == addr {
			return m
		}
	}
	return nil
}

// name returns the name of the relay at an address.
func (r *relays) name(addr string) string {
	if m := r.at(addr); m != nil {
		return m.name
	}
	return addr
}
