package monitor

import (
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
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/quic-go/quic-go"
	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/xdp"
)

// testbed is a client and a server with a router between them.
type testbed struct {
	*testing.T
	client, router, server *nettest.Host
}

// newTestbed returns two hosts and a router between them.
func newTestbed(t *testing.T) *testbed {
	t.Helper()
	s := &testbed{t, nettest.NewHost(t), nettest.NewHost(t), nettest.NewHost(t)}
	for i, h := range []*nettest.Host{s.client, s.server} {
		net := i + 1
		nettest.Cable(h, "eth0", []string{fmt.Sprintf("10.%d.0.2/24", net), fmt.Sprintf("fd0%d::2/64", net)},
			s.router, fmt.Sprintf("r%d", net), []string{fmt.Sprintf("10.%d.0.1/24", net), fmt.Sprintf("fd0%d::1/64", net)})
		h.Route(fmt.Sprintf("10.%d.0.0/24", 2-i), fmt.Sprintf("10.%d.0.1", net))
		h.Route(fmt.Sprintf("fd0%d::/64", 2-i), fmt.Sprintf("fd0%d::1", net))
	}
	s.router.Sysctl("net/ipv4/ip_forward", "1")
	s.router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	return s
}

// watch runs a monitor until the test ends.
func (s *testbed) watch(open func() (Source, error), on *nettest.Host) *Monitor {
	s.Helper()
	var source Source
	on.Do(func() (err error) {
		source, err = open()
		return err
	})
	m, err := New(source, nil)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		// The program may be closed already.
		if err := <-ran; err != nil && !errors.Is(err, context.Canceled) {
			s.Errorf("Run: %v", err)
		}
	})
	return m
}

// needsTCX skips a test on kernels without TCX, where the monitor stage does not
// see packets that are sent.
func needsTCX(tb nettest.TB) {
	tb.Helper()
	if !nettest.KernelAtLeast(tb, 6, 6) {
		tb.Skip("Linux before 6.6 has no TCX, so the monitor stage sees no egress packets")
	}
}

// attach attaches a program to a host's interfaces and runs a monitor.
func (s *testbed) attach(on *nettest.Host, mode xdp.Mode, interfaces ...string) (*xdp.Program, *Monitor) {
	s.Helper()
	needsTCX(s)
	program := loadFlows(s, 2000)
	for _, name := range interfaces {
		on.Do(func() error {
			got, err := program.Attach(name, mode)
			if err == nil && (got != mode || !program.SeesEgress(name)) {
				err = fmt.Errorf("attached in mode %v, sees what leaves: %v", got, program.SeesEgress(name))
			}
			return err
		})
	}
	return program, s.watch(func() (Source, error) { return Kernel(program) }, on)
}

// exchange sends bytes to the server, which echoes them, by IPv4 or IPv6. idLen is the
// length of the client's connection IDs.
func (s *testbed) exchange(client, server string, idLen, size int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		s.Fatal(err)
	}
	there := &quic.Transport{Conn: s.server.Listen(server)}
	defer there.Conn.Close()
	defer there.Close()
	listener, err := there.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}, nil)
	if err != nil {
		s.Fatal(err)
	}
	go func() {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return
		}
		if stream, err := conn.AcceptStream(ctx); err == nil {
			io.Copy(stream, stream)
			stream.Close()
		}
	}()
	here := s.client.Listen(client)
	defer here.Close()
	dial := quic.Dial // with IDs without any bytes
	if idLen > 0 {
		transport := &quic.Transport{Conn: here, ConnectionIDLength: idLen}
		defer transport.Close()
		dial = func(ctx context.Context, _ net.PacketConn, to net.Addr, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return transport.Dial(ctx, to, conf, q)
		}
	}
	conn, err := dial(ctx, here, there.Conn.LocalAddr(), &tls.Config{ServerName: serverName, NextProtos: []string{protocol}, InsecureSkipVerify: true}, nil)
	if err != nil {
		s.Fatal(err)
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		s.Fatal(err)
	}
	go func() {
		stream.Write(make([]byte, size))
		stream.Close()
	}()
	if n, err := io.Copy(io.Discard, stream); err != nil || n != int64(size) {
		s.Fatalf("%d bytes of %d came back: %v", n, size, err)
	}
	conn.CloseWithError(0, "")
}

// agree waits until two monitors have counted the same of one connection, and
// returns it. It returns nil if b has lost packets.
func (s *testbed) agree(a, b *Monitor) *Connection {
	s.Helper()
	one := func(m *Monitor) *Connection {
		var all []Connection
		for c := range m.Connections() {
			all = append(all, c)
		}
		if len(all) != 1 {
			return &Connection{}
		}
		return &all[0]
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		x, y := one(a), one(b)
		if x.FromClient == y.FromClient && x.FromServer == y.FromServer && x.FromClient.Packets > 0 {
			return x
		}
		if b.Stats().SourceDropped > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			s.Fatalf("the kernel counted %v and %v, packet sockets %v and %v, of which %d were lost", x.FromClient, x.FromServer, y.FromClient, y.FromServer, b.Stats().SourceDropped)
		}
	}
}

// TestHosts compares an XDP program with packet sockets, on the client's host and
// on a router.
func TestHosts(t *testing.T) {
	for _, f := range [][2]string{{"10.1.0.2:1000", "10.2.0.2:443"}, {"[fd01::2]:1000", "[fd02::2]:443"}} {
		for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
			for _, place := range []string{"host", "middlebox"} {
				t.Run(fmt.Sprintf("%s/%v/%s", place, mode, f[0]), func(t *testing.T) {
					size := 6 << 20
					for !newTestbed(t).compared(f, mode, place, size) {
						if size /= 2; size < 1<<20 {
							t.Fatal("the packet sockets always lose packets")
						}
					}
				})
			}
		}
	}
}

// compared compares a program with packet sockets. It returns false if the packet
// sockets have lost packets.
func (s *testbed) compared(f [2]string, mode xdp.Mode, place string, size int) bool {
	on, interfaces := s.client, []string{"eth0"}
	if place == "middlebox" {
		on, interfaces = s.router, []string{"r1", "r2"}
	}
	program, kernel := s.attach(on, mode, interfaces...)
	sockets := s.watch(func() (Source, error) { return Capture("eth0") }, s.client)
	s.exchange(f[0], f[1], 4, size)
	c := s.agree(kernel, sockets)
	if c == nil {
		return false
	}
	if c.Confidence != Proven || c.ServerName != serverName || len(c.PathChanges) != 0 {
		s.Errorf("got %v %+v, changes %v", c.Confidence, c.TLS, c.PathChanges)
	}
	want := "in" // on the router's first interface
	if place == "host" {
		want = "out"
	}
	if c.Direction != want {
		s.Errorf("got direction %q, want %q", c.Direction, want)
	}
	if c.FromClient.Bytes < uint64(size) || c.FromServer.Bytes < uint64(size) {
		s.Errorf("got %v and %v", c.FromClient, c.FromServer)
	}
	stats, err := program.Stats()
	if err != nil {
		s.Fatal(err)
	}
	all := c.FromClient.Packets + c.FromServer.Packets
	if reported := stats["monitor_reported"]; reported*20 > all {
		s.Errorf("%d of %d packets were reported: %v", reported, all, stats)
	}
	if st := kernel.Stats(); st.Glued != 0 || st.SourceDropped != 0 {
		s.Errorf("got %+v", st)
	}
	return true
}

// TestLiveHandshakes checks that each handshake of quic-go is one connection, with an XDP
// program and with packet sockets, between hosts whose timing is not simulated.
func TestLiveHandshakes(t *testing.T) {
	const n = 1000
	s := newTestbed(t)
	_, kernel := s.attach(s.router, xdp.Native, "r1", "r2")
	sockets := s.watch(func() (Source, error) { return Capture("r1") }, s.router)
	for i := range n {
		s.exchange(fmt.Sprintf("10.1.0.2:%d", 10_000+i), "10.2.0.2:443", 0, 100)
	}
	for _, m := range []*Monitor{kernel, sockets} {
		all := settled(t, m)
		if len(all) != n {
			t.Errorf("got %d connections, want %d", len(all), n)
		}
		for _, c := range all {
			if c.Confidence != Proven || c.ServerName != serverName {
				t.Errorf("connection %d is %v, with the name %q", c.Number, c.Confidence, c.ServerName)
			}
		}
		if st := m.Stats(); st.SourceDropped > 0 {
			t.Errorf("%d packets were lost", st.SourceDropped)
		}
	}
}

// settled returns the connections of a monitor when it has read all packets: when no
// counter has changed for a second, which is the tick of the kernel's counters.
func settled(t *testing.T, m *Monitor) (all []Connection) {
	t.Helper()
	last := uint64(0)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		sum := uint64(0)
		all = all[:0]
		for c := range m.Connections() {
			all = append(all, c)
			sum += c.FromClient.Packets + c.FromServer.Packets
		}
		if sum == last && sum > 0 {
			return all
		}
		last = sum
	}
	t.Fatal("the counters do not come to rest")
	return nil
}

// TestDetachLeavesNothing checks that Detach and Close remove all programs from an
// interface.
func TestDetachLeavesNothing(t *testing.T) {
	s := newTestbed(t)
	for _, end := range []func(*xdp.Program) error{
		func(p *xdp.Program) error { return p.Detach("eth0") },
		(*xdp.Program).Close,
	} {
		program, _ := s.attach(s.client, xdp.Native, "eth0")
		if before := s.left(); !before {
			t.Fatal("no program is found after Attach: the check does not work")
		}
		s.client.Do(func() error { return end(program) })
		if s.left() {
			t.Error("something is left on the interface")
		}
		program.Close()
	}
}

// left reports whether a program is attached to the client's interface.
func (s *testbed) left() (any bool) {
	s.Helper()
	s.client.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		any = l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
		if any || !nettest.KernelAtLeast(s, 6, 6) {
			return nil
		}
		egress, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXEgress})
		if err != nil {
			return err
		}
		any = len(egress.Programs) > 0
		return nil
	})
	return any
}

// killedHost is set in the process that TestKilledMonitorLeavesNothing kills.
const killedHost = "QUICWAY_TEST_KILLED"

// TestKilledMonitorLeavesNothing checks that kill -9 removes all programs from an
// interface.
func TestKilledMonitorLeavesNothing(t *testing.T) {
	if os.Getenv(killedHost) != "" {
		program := loadFlows(t, 100)
		if _, err := program.Attach("eth0", xdp.Native); err != nil {
			t.Fatal(err)
		}
		fmt.Println("attached")
		select {}
	}
	s := newTestbed(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledMonitorLeavesNothing$")
	cmd.Env = append(os.Environ(), killedHost+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.client.Do(cmd.Start) // in the client's namespace
	line := make([]byte, 64)
	if n, err := out.Read(line); !strings.HasPrefix(string(line[:n]), "attached") {
		t.Fatalf("got %q, %v", line[:n], err)
	}
	if !s.left() {
		t.Fatal("no program is found after Attach: the check does not work")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for deadline := time.Now().Add(10 * time.Second); s.left(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("something is left on the interface")
		}
	}
}
