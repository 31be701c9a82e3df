package nettest

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lined is two hosts at the ends of a line, and a socket on each.
type lined struct {
	*testing.T
	line             *Line
	hosts            [2]*Host
	sender, receiver *net.UDPConn
	to               netip.AddrPort
}

func newLined(t *testing.T, from, to string) *lined {
	t.Helper()
	l := &lined{T: t, hosts: [2]*Host{NewHost(t), NewHost(t)}}
	a, b := netip.MustParseAddr(from), netip.MustParseAddr(to)
	prefix := func(a netip.Addr) []string { return []string{netip.PrefixFrom(a, a.BitLen()-8).String()} }
	l.line = NewLine(l.hosts[0], "eth0", prefix(a), l.hosts[1], "eth0", prefix(b), 1)
	l.sender, l.receiver = l.hosts[0].Listen(netip.AddrPortFrom(a, 1000).String()), l.hosts[1].Listen(netip.AddrPortFrom(b, 2000).String())
	t.Cleanup(func() { l.sender.Close(); l.receiver.Close() })
	l.to = netip.AddrPortFrom(b, 2000)
	// While the sender asks for the link-layer address of the receiver, it queues packets, and those
	// behind them may overtake them when it has it.
	l.send(0)
	l.receive(0)
	return l
}

// send sends numbered datagrams, which arrive in this order.
func (l *lined) send(numbers ...int) {
	l.Helper()
	OnOneCPU(l, func() {
		for _, n := range numbers {
			if _, err := l.sender.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(n)), l.to); err != nil {
				l.Fatal(err)
			}
		}
	})
}

// receive returns the numbers of datagrams, up to the one with the last number.
func (l *lined) receive(last int) (numbers []int) {
	l.Helper()
	for b := make([]byte, 4); ; {
		if err := l.receiver.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			l.Fatal(err)
		}
		if _, err := l.receiver.Read(b); err != nil {
			l.Fatalf("after %d datagrams: %v", len(numbers), err)
		}
		n := int(binary.BigEndian.Uint32(b))
		if n == last {
			return numbers
		}
		numbers = append(numbers, n)
	}
}

var lineEnds = map[string][2]string{"IPv4": {"10.0.0.1", "10.0.0.2"}, "IPv6": {"2001:db8::1", "2001:db8::2"}}

// TestLine checks that a line delivers, delays, loses and duplicates the packets of hosts.
func TestLine(t *testing.T) {
	const last = 1 << 20
	for name, ends := range lineEnds {
		t.Run(name, func(t *testing.T) {
			l := newLined(t, ends[0], ends[1])
			all := make([]int, 100)
			for i := range all {
				all[i] = i
			}
			l.send(append(all, last)...)
			if got := l.receive(last); !slices.Equal(got, all) {
				t.Errorf("without conditions: %v", got)
			}
			l.line.SetEach(LineConditions{Loss: 1}, LineConditions{})
			l.send(1, 2)
			l.await(func(c LineCounts) bool { return c.Lost == 2 })
			l.line.SetEach(LineConditions{Duplicate: 1}, LineConditions{})
			l.send(3)
			l.await(func(c LineCounts) bool { return c.Duplicated == 1 })
			// What is delayed arrives behind what is sent later.
			l.line.SetEach(LineConditions{Delay: time.Hour}, LineConditions{})
			l.send(4)
			l.await(func(c LineCounts) bool { return c.Received == 106 })
			l.line.SetEach(LineConditions{}, LineConditions{})
			l.send(5)
			if got, want := l.receive(5), []int{3, 3}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			// What is delayed does arrive.
			l.line.SetEach(LineConditions{Delay: 50 * time.Millisecond}, LineConditions{})
			l.send(6)
			if got := l.receive(6); len(got) != 0 {
				t.Errorf("got %v before it", got)
			}
		})
	}
}

// await waits until the counts of what the sender sends are so.
func (l *lined) await(ok func(LineCounts) bool) {
	l.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		counts, _ := l.line.Counts()
		if ok(counts) {
			return
		}
		if time.Now().After(deadline) {
			l.Fatalf("the counts are %+v", counts)
		}
	}
}

// TestLineMarks checks that CE arrives in the packets of a socket with ECT, and that the
// host takes them.
func TestLineMarks(t *testing.T) {
	for name, ends := range lineEnds {
		t.Run(name, func(t *testing.T) {
			l := newLined(t, ends[0], ends[1])
			before := l.hosts[1].Counters()
			setECT(t, l.sender, ends[0])
			l.line.Set(LineConditions{CE: 1})
			l.send(1, 2, 3)
			l.receive(3)
			got := l.hosts[1].Counters().Since(before)
			key := map[string]string{"IPv4": "IpExtInCEPkts", "IPv6": "Ip6InCEPkts"}[name]
			if got[key] != 3 {
				t.Errorf("%s grew by %d, want 3: %v", key, got[key], got)
			}
		})
	}
}

func setECT(t *testing.T, c *net.UDPConn, addr string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if netip.MustParseAddr(addr).Is4() {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 2)
		} else {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 2)
		}
	})
	if err := errors.Join(err, optErr); err != nil {
		t.Fatal(err)
	}
}

// TestLineMTU checks that a host learns the MTU of the line from its messages: a connection
// of TCP works after the MTU has been lowered, and does not if the line is silent.
func TestLineMTU(t *testing.T) {
	for name, ends := range lineEnds {
		t.Run(name, func(t *testing.T) {
			l := newLined(t, ends[0], ends[1])
			client, server := l.connect(ends[1])
			l.line.Set(LineConditions{MTU: 1300})
			sent := make([]byte, 100<<10)
			if _, err := client.Write(sent); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < len(sent); {
				if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				n, err := server.Read(make([]byte, 64<<10))
				if err != nil {
					t.Fatalf("after %d bytes: %v", got, err)
				}
				got += n
			}
			if counts, _ := l.line.Counts(); counts.TooBig == 0 {
				t.Errorf("no packet was too big: %+v", counts)
			}
			l.line.Set(LineConditions{MTU: 1200, Silent: true})
			if _, err := client.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := server.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := server.Read(make([]byte, 1<<10)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a silent line delivers %d bytes, %v", n, err)
			}
		})
	}
}

// connect opens a connection of TCP over the line.
func (l *lined) connect(to string) (client, server net.Conn) {
	l.Helper()
	var listener net.Listener
	addr := netip.AddrPortFrom(netip.MustParseAddr(to), 80).String()
	l.hosts[1].Do(func() (err error) { listener, err = net.Listen("tcp", addr); return err })
	l.Cleanup(func() { listener.Close() })
	l.hosts[0].Do(func() (err error) { client, err = net.Dial("tcp", addr); return err })
	server, err := listener.Accept()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { client.Close(); server.Close() })
	if err := client.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		l.Fatal(err)
	}
	return client, server
}
