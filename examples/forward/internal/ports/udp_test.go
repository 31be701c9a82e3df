package ports

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// udpServer answers each datagram with its own text after "re: ".
func (l *lab) udpServer() *net.UDPConn {
	l.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.Fatal(err)
	}
	l.runs(func(ctx context.Context) {
		defer context.AfterFunc(ctx, func() { c.Close() })()
		for b := make([]byte, maxDatagram); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte("re: "), b[:n]...), from)
		}
	})
	return c
}

// TestUDPClockThatIsSet checks that setting the wall clock neither ends a flow nor keeps one alive.
func TestUDPClockThatIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		f := &flow{deliver: func([]byte) {}}
		f.receive(nil)
		soon := nettest.SetClock(time.Now().Add(time.Minute), by)
		if d := f.idle(soon); d < time.Minute || d > 2*time.Minute {
			t.Errorf("clock set by %v: idle for %v after a minute", by, d)
		}
	}
}

// exchange sends a datagram until its answer arrives. It may be lost, as in a flow that is ending,
// and an answer may come twice.
func (l *lab) exchange(c net.Conn, text string) {
	l.Helper()
	b := make([]byte, maxDatagram)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := c.Write([]byte(text)); err != nil {
			l.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(b)
		for err == nil && string(b[:n]) != "re: "+text {
			n, err = c.Read(b) // the answer to an earlier one
		}
		if err == nil {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			l.Fatal(err)
		}
	}
	l.Fatalf("no answer to %d bytes", len(text))
}

// TestUDP sends datagrams of several clients, of which the first and the long ones travel on the
// stream, there and back.
func TestUDP(t *testing.T) {
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	spec := Spec{Network: "udp", Target: l.udpServer().LocalAddr().String()}
	for way, addr := range map[string]string{"here": l.listen(spec, l.conf(), fixed{a}), "at the peer": l.listenAtPeer(a, spec)} {
		t.Run(way, func(t *testing.T) {
			for i := range 10 {
				c := l.client("udp", addr)
				for _, text := range []string{"first", "", "second", strings.Repeat("long ", 1600), fmt.Sprint("client ", i)} {
					l.exchange(c, text)
				}
			}
		})
	}
}

// TestUDPIdle checks that a flow ends on both sides when it has been idle, and that the client
// gets another one.
func TestUDPIdle(t *testing.T) {
	l := newLab(t)
	conf := l.conf()
	conf.UDPIdle = 200 * time.Millisecond
	a, b := l.sessions(conf, l.conf())
	c := l.client("udp", l.listen(Spec{Network: "udp", Target: l.udpServer().LocalAddr().String()}, conf, fixed{a}))
	for range 3 {
		l.exchange(c, "hello")
		for deadline := time.Now().Add(patience); a.flowCount()+b.flowCount() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d and %d flows", a.flowCount(), b.flowCount())
			}
		}
	}
}

func (s *Session) flowCount() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.flows)
}

// TestUDPTargetDown checks that a flow goes on when its target listens later.
func TestUDPTargetDown(t *testing.T) {
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	c, server := l.targetDown(a)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // until one arrives
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.Write([]byte("again"))
			}
		}
	}()
	b := make([]byte, 100)
	n, err := server.Read(b)
	if err != nil || !bytes.Equal(b[:n], []byte("again")) && !bytes.Equal(b[:n], []byte("lost")) {
		t.Fatalf("got %q, %v", b[:n], err)
	}
}

// targetDown sends a datagram to a target before it listens. It tries again if another program
// has taken the target's port meanwhile.
func (l *lab) targetDown(a *Session) (client net.Conn, target *net.UDPConn) {
	l.Helper()
	for tries := 1; ; tries++ {
		probe := l.udpServer()
		addr := probe.LocalAddr().(*net.UDPAddr)
		probe.Close()
		client = l.client("udp", l.listen(Spec{Network: "udp", Target: addr.String()}, l.conf(), fixed{a}))
		if _, err := client.Write([]byte("lost")); err != nil {
			l.Fatal(err)
		}
		target, err := net.ListenUDP("udp", addr)
		if errors.Is(err, syscall.EADDRINUSE) && tries < 10 {
			continue
		}
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { target.Close() })
		if err := target.SetReadDeadline(time.Now().Add(patience)); err != nil {
			l.Fatal(err)
		}
		return client, target
	}
}

// lines gets what is logged, a line in each write.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestUDPRefused checks that the side that listens says why the peer forwards nothing.
func TestUDPRefused(t *testing.T) {
	l := newLab(t)
	y := l.conf()
	y.Targets = nil
	a, _ := l.sessions(l.conf(), y)
	logged := make(lines, 100)
	x := l.conf()
	x.Log = slog.New(slog.NewTextHandler(logged, nil))
	c := l.client("udp", l.listen(Spec{Network: "udp", Target: "127.0.0.1:9"}, x, fixed{a}))
	for range 3 { // some of which the peer does not read
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case line := <-logged:
		if !strings.Contains(line, "cannot forward") || !strings.Contains(line, "is not permitted") {
			t.Errorf("logged %s", line)
		}
	case <-time.After(patience):
		t.Error("nothing is logged")
	}
}

// TestUDPQueue checks how many bytes wait for a stream that the peer does not read, and that
// written ones make room.
func TestUDPQueue(t *testing.T) {
	f := &flow{records: make(chan []byte, maxRecords)}
	for range maxRecords {
		f.send(make([]byte, maxDatagram))
	}
	bytes := 0
	for len(f.records) > 0 {
		bytes += len(<-f.records)
	}
	if bytes != maxQueued || f.queued.Load() != maxQueued {
		t.Errorf("%d bytes wait, and %d are counted, want %d", bytes, f.queued.Load(), maxQueued)
	}
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	c := l.client("udp", l.listen(Spec{Network: "udp", Target: l.udpServer().LocalAddr().String()}, l.conf(), fixed{a}))
	for range maxQueued/8000 + 1 { // too long for a QUIC datagram
		l.exchange(c, strings.Repeat("long ", 1600))
	}
}

// TestUDPFlows checks that flows leave streams for TCP, and that one which has ended does not
// count.
func TestUDPFlows(t *testing.T) {
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	a.begun.Store(maxFlows - 1)
	for range 2 {
		stream, err := a.openFlow()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.openFlow(); err == nil || a.begun.Load() != maxFlows {
			t.Fatalf("%v, %d flows", err, a.begun.Load())
		}
		f := a.newFlow(t.Context(), stream, func([]byte) {})
		f.end()
		(&udpFlows{}).run(netip.AddrPort{}, f)
	}
}

// TestUnknownFlow checks that a datagram of no flow is dropped, and the session goes on.
func TestUnknownFlow(t *testing.T) {
	l := newLab(t)
	a, _ := l.sessions(l.conf(), l.conf())
	for _, d := range [][]byte{{}, {0x40}, {4, 1, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		if err := a.conn.SendDatagram(d); err != nil {
			t.Fatal(err)
		}
	}
	l.exchange(l.client("udp", l.listen(Spec{Network: "udp", Target: l.udpServer().LocalAddr().String()}, l.conf(), fixed{a})), "hello")
}
