package capture

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/test/nettest"
)

// open captures on an interface of a host.
func open(t *testing.T, h *nettest.Host, names ...string) *Socket {
	t.Helper()
	var s *Socket
	h.Do(func() (err error) {
		s, err = Open(names)
		return err
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// next returns the next frame and its datagram.
func next(t *testing.T, s *Socket) (Frame, decap.Datagram) {
	t.Helper()
	timer := time.AfterFunc(10*time.Second, func() { s.Close() })
	defer timer.Stop()
	var f Frame
	var d decap.Datagram
	for {
		if err := s.Read(&f); err != nil {
			t.Fatalf("nothing was captured: %v", err)
		}
		if decap.UDP(f.Link, f.Data, &d) == decap.Found {
			return f, d
		}
	}
}

// TestBothWays checks that packets that a host sends and receives are captured once, and
// none of other interfaces.
func TestBothWays(t *testing.T) {
	a, b := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(a, "veth0", []string{"192.0.2.1/24"}, b, "veth0", []string{"192.0.2.2/24"})
	s := open(t, a, "veth0")
	one, two := a.Listen("192.0.2.1:1000"), b.Listen("192.0.2.2:2000")
	lo1, lo2 := a.Listen("127.0.0.1:3000"), a.Listen("127.0.0.1:4000")
	for _, c := range []net.Conn{one, two, lo1, lo2} {
		defer c.Close()
	}
	if _, err := lo1.WriteTo([]byte("elsewhere"), lo2.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, err := one.WriteTo([]byte("out"), two.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	f, d := next(t, s)
	if string(d.Payload) != "out" || !f.Outgoing || f.Incoming || f.Interface == 0 || d.Src.String() != "192.0.2.1:1000" {
		t.Errorf("got %q from %v, outgoing %v", d.Payload, d.Src, f.Outgoing)
	}
	if age := time.Since(f.Time); age < 0 || age > time.Hour {
		t.Errorf("it was captured %v ago", age)
	}
	if _, err := two.WriteTo([]byte("in"), one.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	f, d = next(t, s)
	if string(d.Payload) != "in" || f.Outgoing || !f.Incoming || d.Dst.String() != "192.0.2.1:1000" {
		t.Errorf("got %q to %v, incoming %v", d.Payload, d.Dst, f.Incoming)
	}
	if got := s.Dropped(); got != 0 {
		t.Errorf("%d packets were dropped", got)
	}
}

// TestLoopback checks that each packet is captured once, and that datagrams which GSO has
// put together have their segment size.
func TestLoopback(t *testing.T) {
	h := nettest.NewHost(t)
	s := open(t, h, "lo")
	one, two := h.Listen("127.0.0.1:1000"), h.Listen("127.0.0.1:2000")
	defer one.Close()
	defer two.Close()
	control := make([]byte, unix.CmsgSpace(2))
	header := binary.NativeEndian
	header.PutUint64(control, uint64(unix.CmsgLen(2)))
	header.PutUint32(control[8:], unix.SOL_UDP)
	header.PutUint32(control[12:], unix.UDP_SEGMENT)
	header.PutUint16(control[unix.CmsgLen(0):], 500)
	to := two.LocalAddr().(*net.UDPAddr)
	nettest.OnOneCPU(t, func() {
		if _, _, err := one.WriteMsgUDP(make([]byte, 1700), control, to); err != nil {
			nettest.Missing(t, "UDP_SEGMENT: "+err.Error())
		}
		if _, err := one.WriteTo([]byte("single"), to); err != nil {
			t.Fatal(err)
		}
	})
	f, d := next(t, s)
	if d.Length != 1700 || f.SegmentSize != 500 {
		t.Errorf("got %d bytes in segments of %d, want 1700 in segments of 500", d.Length, f.SegmentSize)
	}
	if f, d = next(t, s); string(d.Payload) != "single" || f.SegmentSize != 0 {
		t.Errorf("got %q in segments of %d, want the single packet, and the train once", d.Payload, f.SegmentSize)
	}
}

func TestClose(t *testing.T) {
	s := open(t, nettest.NewHost(t))
	done := make(chan error)
	go func() {
		var f Frame
		done <- s.Read(&f)
	}()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: got %v, want %v", err, net.ErrClosed)
	}
	s.Dropped() // after Close as well
}

func TestNoInterface(t *testing.T) {
	if _, err := Open([]string{"no-such-interface"}); err == nil {
		t.Error("captures on an interface that is not there")
	}
}

// TestFilter checks that TCP and packets of other interfaces are left out.
func TestFilter(t *testing.T) {
	for _, indexes := range [][]int{nil, {1}, {1, 2, 3}} {
		if _, err := bpf.Assemble(filter(indexes)); err != nil {
			t.Errorf("%v: %v", indexes, err)
		}
	}
	h := nettest.NewHost(t)
	s := open(t, h, "lo")
	listener := func() (l net.Listener) {
		h.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err })
		return l
	}()
	defer listener.Close()
	h.Do(func() error {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	udp := h.Listen("127.0.0.1:1000")
	defer udp.Close()
	if _, err := udp.WriteTo([]byte("after TCP"), udp.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	var f Frame
	if err := s.Read(&f); err != nil {
		t.Fatal(err)
	}
	var d decap.Datagram
	if why := decap.UDP(f.Link, f.Data, &d); why != decap.Found || string(d.Payload) != "after TCP" {
		t.Errorf("the first packet is %v, %q, want the datagram", why, d.Payload)
	}
}
