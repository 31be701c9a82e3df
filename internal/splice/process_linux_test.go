package splice

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// relayProcess is the environment variable that makes a process of this test a relay: it has the
// directory to pin in, the address to listen on and that of the upstream.
const relayProcess = "SPLICE_RELAY_PROCESS"

// TestRelayProcess is the relay that other tests start and kill. It takes over each connection that
// has relayed a byte, and prints a line for each.
func TestRelayProcess(t *testing.T) {
	args := strings.Split(os.Getenv(relayProcess), " ")
	if len(args) != 3 {
		t.Skip("started by other tests only")
	}
	p, err := Load(&Config{Pin: strings.Trim(args[0], `"`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Attach("ra"), p.Attach("rb")); err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", args[1])
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	for {
		down, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var d net.Dialer
		d.SetMultipathTCP(false)
		up, err := d.Dial("tcp", args[2])
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(up, down)
		go io.Copy(down, up)
		if _, err := p.Take(t.Context(), down.(*net.TCPConn), up.(*net.TCPConn), 0); err != nil {
			fmt.Println("refused:", err)
		} else {
			fmt.Println("taken")
		}
	}
}

// process is a relay in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Scanner
}

func (l *lab) start(pin string) *process {
	l.t.Helper()
	p := &process{t: l.t}
	l.relay.Do(func() error {
		p.cmd = exec.Command(os.Args[0], "-test.run=^TestRelayProcess$", "-test.v")
		p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%q %s %s", relayProcess, pin, l.addr("10.1.0.2", "fd00:1::2"), l.served.Addr()))
		p.cmd.Stderr = os.Stderr
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return err
		}
		p.out = bufio.NewScanner(out)
		return p.cmd.Start()
	})
	l.t.Cleanup(p.kill)
	p.wait("ready")
	return p
}

// wait waits until the process has printed a line.
func (p *process) wait(line string) {
	p.t.Helper()
	for p.out.Scan() {
		if p.out.Text() == line {
			return
		}
		if strings.HasPrefix(p.out.Text(), "refused") || strings.Contains(p.out.Text(), "FAIL") {
			p.t.Fatal(p.out.Text())
		}
	}
	p.t.Fatalf("the process has ended before it printed %q", line)
}

// kill kills the process as kill -9 does.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// ends returns a connection through the process that the kernel relays.
func (l *lab) ends(p *process) *chain {
	l.t.Helper()
	c := &chain{l: l}
	c.client = l.dial(l.client, "", l.addr("10.1.0.2", "fd00:1::2"))
	c.server = accept(l.t, l.served)
	l.t.Cleanup(func() { c.client.Close(); c.server.Close() })
	p.wait("taken")
	return c
}

// newServed makes a lab without a relay.
func newServed(t *testing.T, v6 bool) *lab {
	l := newCables(t, v6)
	l.relayed.Close()
	return l
}

// TestKill checks that both ends are reset soon when the process is killed while bytes move.
func TestKill(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newServed(t, v6)
		p := l.start("")
		c, s := l.ends(p), newStreams()
		c.mustExchange(s, 1<<20)
		moved := make(chan error, 1)
		go func() { moved <- c.exchange(s, 1<<40) }()
		p.kill()
		if err := <-moved; !isReset(err) {
			t.Errorf("moved until %v, want a reset", err)
		}
	})
}

// TestAdopt checks that pinned pairs go on when the process is killed, and that the next process takes
// them over: one comes back to userspace, one is reset, and one ends.
func TestAdopt(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newServed(t, v6)
		dir := filepath.Join(nettest.BPFFS(t), "splice")
		p := l.start(dir)
		var chains []*chain
		for range 3 {
			chains = append(chains, l.ends(p))
		}
		l.relay.Do(func() error {
			if _, err := Load(&Config{Pin: dir}); !errors.Is(err, ErrBusy) {
				t.Errorf("loaded by two processes: %v, want %v", err, ErrBusy)
			}
			return nil
		})
		all := l.killBusy(p, chains)
		l.load(&Config{Pin: dir, MaxPairs: 77})
		pairs := l.adopted(chains)
		for i, c := range chains {
			c.mustExchange(all[i], 1<<20)
			if client, _ := pairs[i].Traffic(); client.Bytes < 18<<20 {
				t.Errorf("%d bytes from the client, want more", client.Bytes)
			}
		}
		chains[0].takeBack(pairs[0])
		wantOptions(t, chains[0].down)
		wantOptions(t, chains[0].up)
		chains[0].mustExchange(all[0], 1<<20)
		if err := pairs[1].Abort(); err != nil {
			t.Error(err)
		}
		wantReset(t, chains[1].client)
		wantReset(t, chains[1].server)
		chains[2].client.CloseWrite()
		chains[2].server.CloseWrite()
		wantEnd(t, pairs[2], Finished)
		l.empty()
		if err := errors.Join(l.program.Close(t.Context()), Unpin(dir)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is left: %v", err)
		}
	})
}

// killBusy kills the process while bytes move, and checks that they arrive. It returns the streams.
func (l *lab) killBusy(p *process, chains []*chain) (all []*streams) {
	l.t.Helper()
	moved := make(chan error, len(chains))
	for _, c := range chains {
		s := newStreams()
		all = append(all, s)
		go func() { moved <- c.exchange(s, 16<<20) }()
	}
	p.kill()
	for range chains {
		if err := <-moved; err != nil {
			l.t.Fatal(err)
		}
	}
	for i, c := range chains {
		c.mustExchange(all[i], 1<<20)
	}
	return all
}

// adopted returns the pairs of chains that an earlier process has left.
func (l *lab) adopted(chains []*chain) []*Pair {
	l.t.Helper()
	byClient := make(map[string]*Pair)
	for pair := range l.program.Pairs() {
		remote, _ := pair.Client()
		byClient[remote.String()] = pair
	}
	if len(byClient) != len(chains) {
		l.t.Fatalf("%d pairs, want %d", len(byClient), len(chains))
	}
	var pairs []*Pair
	for _, c := range chains {
		pair := byClient[c.client.LocalAddr().String()]
		if pair == nil {
			l.t.Fatalf("no pair of %v", c.client.LocalAddr())
		}
		remote, _ := pair.Upstream()
		if got, want := remote.String(), l.served.Addr().String(); got != want {
			l.t.Errorf("upstream %v, want %v", got, want)
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// wantOptions checks that a socket has what its connection had before, whoever has made the socket.
func wantOptions(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := control(c, func(fd int) error {
		const all = 1 | 2 | 4 // timestamps, SACK, window scale: TCPI_OPT in include/uapi/linux/tcp.h
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && (info.Options&all != all || info.Snd_mss < 1400) {
			t.Errorf("options %x, MSS %d", info.Options, info.Snd_mss)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s := settingsOf(t, c); s.Probes[0] != 1 || s.Carried[3] != 1 || s.Carried[0] != 15 {
		t.Errorf("settings %+v, want those of package net", s)
	}
}

// TestHandOver checks that a pinned program that is closed leaves its pairs to the next one.
func TestHandOver(t *testing.T) {
	t.Parallel()
	l := newCables(t, false)
	dir := filepath.Join(nettest.BPFFS(t), "splice")
	l.load(&Config{Pin: dir})
	c, s := l.connect(), newStreams()
	c.mustExchange(s, 1000)
	pair := c.take()
	c.mustExchange(s, 1000)
	if err := l.program.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, pair, Left)
	c.copies.Wait()
	c.mustExchange(s, 1<<20)
	l.load(&Config{Pin: dir})
	for adopted := range l.program.Pairs() {
		c.takeBack(adopted)
	}
	c.mustExchange(s, 1<<20)
	if err := l.program.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(dir); err != nil {
		t.Error(err)
	}
	c.mustExchange(s, 1000)
}
