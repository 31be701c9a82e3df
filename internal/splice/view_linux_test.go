package splice

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

func mustPeeker(t *testing.T) *peeker {
	t.Helper()
	p, err := newPeeker()
	if errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported) {
		nettest.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close() })
	return p
}

// loopback moves the test into a network namespace whose loopback interface is up.
func loopback(t *testing.T) {
	t.Helper()
	nettest.Namespace(t)
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// connect returns an accepted connection, and the dialed one at its other end.
func connect(t *testing.T, listen, dial string) (accepted, dialed *net.TCPConn) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	d.SetMultipathTCP(false)
	to := netip.AddrPortFrom(netip.MustParseAddr(dial), l.Addr().(*net.TCPAddr).AddrPort().Port())
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); c.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

// transfer moves bytes from one end of a connection to the other.
func transfer(t *testing.T, from, to *net.TCPConn, n int64) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, to, n)
		done <- err
	}()
	if _, err := io.CopyN(from, zeros{}, n); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestFirstNumbers checks that the first numbers of real sockets can be told at any time.
func TestFirstNumbers(t *testing.T) {
	t.Parallel()
	loopback(t)
	p := mustPeeker(t)
	for name, c := range map[string]struct{ listen, dial string }{
		"IPv4":                 {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":                 {"[::1]:0", "::1"},
		"IPv4 on an IPv6 port": {"[::]:0", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			a, d := connect(t, c.listen, c.dial)
			look := func() [2]position {
				views, err := p.peek(tupleOf(a), tupleOf(d))
				if err != nil || views[0].Found == 0 || views[1].Found == 0 {
					t.Fatalf("%+v, %v", views, err)
				}
				return [2]position{views[0].position(), views[1].position()}
			}
			start := look()
			for _, n := range []int64{1, 1000, 1 << 20} {
				transfer(t, d, a, n)
				transfer(t, a, d, 3*n)
				now := look()
				for i, dialed := range []bool{false, true} {
					first := start[i]
					if got := now[i].sent(dialed); got != first.writeSeq {
						t.Errorf("dialed %v: the first byte sent is %d, want %d", dialed, got, first.writeSeq)
					}
					if got := now[i].received(); got != first.copiedSeq {
						t.Errorf("dialed %v: the first byte received is %d, want %d", dialed, got, first.copiedSeq)
					}
				}
			}
		})
	}
}

// TestPeekMissing checks that sockets are not found before they exist, in other namespaces, and in
// TIME_WAIT.
func TestPeekMissing(t *testing.T) {
	t.Parallel()
	loopback(t)
	p := mustPeeker(t)
	a, d := connect(t, "127.0.0.1:0", "127.0.0.1")
	ends := [2]tuple{tupleOf(a), tupleOf(d)}
	want := func(what string, found bool) {
		t.Helper()
		views, err := p.peek(ends[0], ends[1])
		if err != nil || (views[0].Found != 0) != found || (views[1].Found != 0) != found {
			t.Errorf("%s: found %d and %d, %v", what, views[0].Found, views[1].Found, err)
		}
	}
	want("connected", true)
	nettest.NewHost(t).Do(func() error { want("in another namespace", false); return nil })
	a.CloseWrite()
	if _, err := io.ReadAll(d); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := io.ReadAll(a); err != nil { // the FIN of d has come: a is in TIME_WAIT
		t.Fatal(err)
	}
	a.Close()
	want("closed", false)
}
