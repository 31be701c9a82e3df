package nettest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// lab is a host behind a NAT, and two observers outside:
//
//	host 192.168.1.2 — nat 203.0.113.2 — core — observers 198.51.100.2, .6
type lab struct {
	*testing.T
	host, nat, core *Host
	a, b, other     *net.UDPConn // one observer has two ports
	inside          *net.UDPConn
}

// The host uses a port above 1023: those below are few, and the NAT may choose the same
// one again.
const natInside = "192.168.1.2:10000"

func newLab(t *testing.T, nat NAT) *lab {
	t.Helper()
	l := &lab{T: t, host: NewHost(t), nat: NewHost(t), core: NewHost(t)}
	Cable(l.host, "eth0", []string{"192.168.1.2/24", "192.168.1.3/24"}, l.nat, "in", []string{"192.168.1.1/24"})
	Cable(l.nat, "out", []string{"203.0.113.2/24"}, l.core, "eth0", []string{"203.0.113.1/24"})
	l.host.Route("0.0.0.0/0", "192.168.1.1")
	l.nat.Route("0.0.0.0/0", "203.0.113.1")
	l.core.NAT(NoNAT, "")
	l.core.Route("192.168.1.0/24", "203.0.113.2") // for what is not translated

	first, second := NewHost(t), NewHost(t)
	Cable(first, "eth0", []string{"198.51.100.2/30"}, l.core, "eth1", []string{"198.51.100.1/30"})
	Cable(second, "eth0", []string{"198.51.100.6/30"}, l.core, "eth2", []string{"198.51.100.5/30"})
	first.Route("0.0.0.0/0", "198.51.100.1")
	second.Route("0.0.0.0/0", "198.51.100.5")
	l.nat.NAT(nat, "out")

	l.inside = l.listen(l.host, natInside)
	l.a, l.b = l.listen(first, "198.51.100.2:3478"), l.listen(first, "198.51.100.2:3479")
	l.other = l.listen(second, "198.51.100.6:3478")
	return l
}

func (l *lab) listen(h *Host, addr string) *net.UDPConn {
	l.Helper()
	c := h.Listen(addr)
	l.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c net.PacketConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// passes sends a packet, and returns the source address with which it arrives. It does
// not wait long for one that is expected to be lost: a veth delivers a packet within the
// call that sends it.
func (l *lab) passes(from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, expected bool) (netip.AddrPort, bool) {
	l.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("?"), to); err != nil {
		l.Fatal(err)
	}
	return l.receives(at, expected)
}

// receives waits for a packet, and returns its source address.
func (l *lab) receives(at *net.UDPConn, expected bool) (netip.AddrPort, bool) {
	l.Helper()
	patience := 100 * time.Millisecond
	if expected {
		patience = 10 * time.Second
	}
	if err := at.SetReadDeadline(time.Now().Add(patience)); err != nil {
		l.Fatal(err)
	}
	_, source, err := at.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		l.Fatal(err)
	}
	return netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), err == nil
}

func (l *lab) seen(from, observer *net.UDPConn) netip.AddrPort {
	l.Helper()
	at, ok := l.passes(from, addrOf(observer), observer, true)
	if !ok {
		l.Fatalf("%v does not hear %v", observer.LocalAddr(), from.LocalAddr())
	}
	return at
}

func TestKernelNAT(t *testing.T) {
	for _, test := range []struct {
		name       string
		nat        NAT
		translates bool
		samePort   bool // one mapping for all targets
		open       bool // to those who have not been sent to
	}{
		{"none", NoNAT, false, true, true},
		{"full cone", FullCone, true, true, true},
		{"port-restricted", PortRestricted, true, true, false},
		{"symmetric", Symmetric, true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, test.nat)
			at := l.seen(l.inside, l.a)
			if want := netip.MustParseAddr("203.0.113.2"); test.translates && at.Addr() != want {
				t.Errorf("seen at %v, want %v", at, want)
			}
			if kept := at == addrOf(l.inside) || at.Port() == 1000; kept == test.translates {
				t.Errorf("seen at %v", at)
			}
			if _, ok := l.passes(l.a, at, l.inside, true); !ok {
				t.Error("an answer does not arrive")
			}
			for _, observer := range []*net.UDPConn{l.b, l.other} {
				from, ok := l.passes(observer, at, l.inside, test.open)
				if ok != test.open || ok && from != addrOf(observer) {
					t.Errorf("unasked from %v: got %v from %v, want %v", observer.LocalAddr(), ok, from, test.open)
				}
			}
			for _, observer := range []*net.UDPConn{l.b, l.other} {
				now := l.seen(l.inside, observer)
				if (now == at) != test.samePort {
					t.Errorf("at %v: got %v, the first saw %v", observer.LocalAddr(), now, at)
				}
				if _, ok := l.passes(observer, now, l.inside, true); !ok {
					t.Errorf("an answer of %v does not arrive", observer.LocalAddr())
				}
			}
			neighbour := l.listen(l.host, "192.168.1.3:10000")
			if now := l.seen(neighbour, l.a); now == at {
				t.Errorf("two hosts are mapped to %v", at)
			}
		})
	}
}

func TestKernelUDPBlocked(t *testing.T) {
	l := newLab(t, UDPBlocked)
	if at, ok := l.passes(l.inside, addrOf(l.a), l.a, false); ok {
		t.Errorf("heard %v", at)
	}
}

func TestKernelForget(t *testing.T) {
	for _, nat := range []NAT{FullCone, PortRestricted, Symmetric} {
		l := newLab(t, nat)
		at := l.seen(l.inside, l.a)
		l.nat.Forget()
		if _, ok := l.passes(l.a, at, l.inside, false); ok {
			t.Errorf("NAT %d: a forgotten mapping lets a packet in", nat)
		}
		now := l.seen(l.inside, l.a)
		if now == at {
			t.Errorf("NAT %d: the mapping is %v again", nat, now)
		}
		if _, ok := l.passes(l.a, now, l.inside, true); !ok {
			t.Errorf("NAT %d: an answer does not arrive", nat)
		}
	}
}

func TestKernelCut(t *testing.T) {
	l := newLab(t, FullCone)
	at := l.seen(l.inside, l.a)
	l.seen(l.inside, l.other)
	l.core.Cut("203.0.113.2", "198.51.100.2")
	if _, ok := l.passes(l.inside, addrOf(l.a), l.a, false); ok {
		t.Error("the way out is not cut")
	}
	if _, ok := l.passes(l.a, at, l.inside, false); ok {
		t.Error("the way in is not cut")
	}
	if now := l.seen(l.inside, l.other); now != at {
		t.Errorf("the mapping is %v, was %v", now, at)
	}
	l.core.Mend()
	l.seen(l.inside, l.a)
	if _, ok := l.passes(l.a, at, l.inside, true); !ok {
		t.Error("the way in is not mended")
	}
}

func TestKernelReaddress(t *testing.T) {
	l := newLab(t, PortRestricted)
	old := l.seen(l.inside, l.a)
	l.nat.Readdress("out", "203.0.113.7/24")
	l.nat.Forget()
	at := l.seen(l.inside, l.a)
	if want := netip.MustParseAddr("203.0.113.7"); at.Addr() != want {
		t.Errorf("seen at %v, want %v; was %v", at, want, old)
	}
	if _, ok := l.passes(l.a, at, l.inside, true); !ok {
		t.Error("an answer does not arrive")
	}
}

func TestKernelBlockUDP(t *testing.T) {
	for name, where := range map[string]func(*lab) *Host{
		"host":    func(l *lab) *Host { return l.host },
		"gateway": func(l *lab) *Host { return l.nat },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, FullCone)
			at := l.seen(l.inside, l.a)
			check := func(state string, outward, inward, others bool) {
				t.Helper()
				if ok := l.arrives(l.inside, addrOf(l.a), l.a, outward); ok != outward {
					t.Errorf("%s: out %v, want %v", state, ok, outward)
				}
				if ok := l.arrives(l.a, at, l.inside, inward); ok != inward {
					t.Errorf("%s: in %v, want %v", state, ok, inward)
				}
				if ok := l.arrives(l.inside, addrOf(l.other), l.other, others); ok != others {
					t.Errorf("%s: to others %v, want %v", state, ok, others)
				}
			}
			h := where(l)
			h.BlockUDP("198.51.100.2")
			check("one address", false, false, true)
			h.BlockUDP("")
			check("all", false, false, false)
			h.UnblockUDP()
			check("none", true, true, true)
		})
	}
}

// arrives says whether a packet arrives. The system may refuse to send it.
func (l *lab) arrives(from *net.UDPConn, to netip.AddrPort, at *net.UDPConn, expected bool) bool {
	l.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("?"), to); errors.Is(err, syscall.EPERM) {
		return false
	} else if err != nil {
		l.Fatal(err)
	}
	_, ok := l.receives(at, expected)
	return ok
}
