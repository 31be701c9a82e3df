package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// serve starts a relay, which the end of the flood ends. It returns its output.
func (b *bed) serve(stdin io.Reader, name string, args ...string) (*bufio.Scanner, error) {
	ctx, end := context.WithCancel(b.ctx)
	b.Cleanup(end)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stderr = stdin, &b.said
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second // then it is killed
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.relay.Run(cmd.Start); err != nil {
		return nil, err
	}
	b.pids = append(b.pids, cmd.Process.Pid)
	b.Cleanup(func() {
		end()
		_ = cmd.Wait() // it has been ended
	})
	return bufio.NewScanner(out), nil
}

// lines reads lines of a relay up to one that says that it is ready.
func lines(out *bufio.Scanner) (all []string, err error) {
	for out.Scan() {
		if out.Text() == "ready" {
			return all, nil
		}
		all = append(all, out.Text())
	}
	return nil, errors.Join(out.Err(), errors.New("the relay has ended"))
}

// knock runs a client, which makes the relay ready to relay the flows. It prints what the packets of
// each flow begin with.
func (b *bed) knock(h *nettest.Host, stdin, name string, args ...string) (begins [][]byte, err error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &b.said
	if err := h.Run(cmd.Run); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	for line := range strings.Lines(out.String()) {
		begin, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		begins = append(begins, begin)
	}
	if len(begins) != b.shape.flows {
		return nil, fmt.Errorf("%s: %d flows, want %d", filepath.Base(name), len(begins), b.shape.flows)
	}
	return begins, nil
}

// toRelay is where the sender finds the relay.
var toRelay = netip.AddrPortFrom(netip.MustParseAddr(relayToSender), relayPort)

// openAll opens the flows to the relay.
func (b *bed) openAll(begins [][]byte) {
	for _, begin := range begins {
		b.open(begin, toRelay)
	}
}

// await waits until a relay that says nothing has opened its UDP port, and has so many processes.
func (b *bed) await(processes int) error {
	const patience = 5 * time.Second
	port := fmt.Sprintf(":%04X ", relayPort)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && b.ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		var sockets []byte
		if err := b.relay.Run(func() (err error) {
			sockets, err = os.ReadFile("/proc/thread-self/net/udp")
			return err
		}); err != nil {
			return err
		}
		b.pids = family(b.pids[0])
		if strings.Contains(string(sockets), port) && len(b.pids) >= processes {
			return nil
		}
	}
	return errors.New("the relay does not listen")
}

// family returns a process and its children.
func family(parent int) []int {
	all := []int{parent}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name; then the state and the parent
		fields := strings.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			all = append(all, pid)
		}
	}
	return all
}

// memory returns how much memory of the relay's processes is resident, in bytes.
func (b *bed) memory() (sum int64) {
	for _, pid := range b.pids {
		sum += memoryOf(pid, "VmRSS:")
	}
	return sum
}

// memoryOf returns a size in the status of a process, in bytes; 0 if the process has ended.
func memoryOf(pid int, what string) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), what)
	var kB int64
	_, _ = fmt.Sscan(rest, &kB)
	return kB << 10
}
