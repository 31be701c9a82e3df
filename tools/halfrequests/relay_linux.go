package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

// asRelay is the argument that makes this program the relay.
const asRelay = "-serve-relay"

// identity is what the relay's process writes to its standard output.
type identity struct{ Addr, Token, Pin string }

// serve runs the relay until the standard input ends.
func serve() error {
	server, err := relay.Listen(context.Background(), "udp4", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer server.Close()
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	if err := json.NewEncoder(os.Stdout).Encode(identity{server.Addr().String(), server.Token(), server.Pin()}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	select {
	case err := <-served:
		return err
	case <-ended:
		return nil
	}
}

// relayProcess is the process of the relay.
type relayProcess struct {
	identity
	pid  int
	stop func()
}

func startRelay(ctx context.Context) (*relayProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, asRelay)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &relayProcess{pid: cmd.Process.Pid, stop: func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}}
	if err := json.NewDecoder(stdout).Decode(&r.identity); err != nil {
		r.stop()
		return nil, fmt.Errorf("the relay does not start: %w", err)
	}
	return r, nil
}

// where returns the relay for peers.
func (r *relayProcess) where() (p2p.Relay, error) {
	pin, err := p2p.ParsePeerID(r.Pin)
	return p2p.Relay{Addr: r.Addr, Token: r.Token, Pin: pin}, err
}

// memory is how many bytes of memory the process has (VmRSS).
func (r *relayProcess) memory() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); err == nil {
			return kilobytes << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d does not say how much memory it has", r.pid)
}

// watchMemory watches the memory until ctx is done. The returned function returns its
// maximum.
func (r *relayProcess) watchMemory(ctx context.Context) (peak func() int) {
	var most atomic.Int64
	go func() {
		for ctx.Err() == nil {
			n, err := r.memory()
			if err != nil {
				return // the process has ended
			}
			most.Store(max(most.Load(), int64(n)))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() int { return int(most.Load()) }
}
