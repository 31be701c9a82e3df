package p2p

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestWhyRelayIsSilent checks that the error distinguishes a system that sends nothing
// from a network that loses everything.
func TestWhyRelayIsSilent(t *testing.T) {
	runLab(t, func(l *lab) {
		h := l.host(nil)
		h.conn.Unreachable(true)
		if _, err := h.Dial(l.Context(), PeerID{1}, nil); !errors.Is(err, ErrRelayUnreachable) || !errors.Is(err, nettest.ErrUnreachable) {
			l.Errorf("no route: %v", err)
		}
	})
	runLab(t, func(l *lab) {
		l.net.Filter(func(nettest.Packet) bool { return false })
		if _, err := l.host(nil).Dial(l.Context(), PeerID{1}, nil); !errors.Is(err, ErrRelayUnreachable) || !errors.Is(err, errSilence) {
			l.Errorf("silence: %v", err)
		}
		l.net.Filter(nil)
	})
}

// TestICMPErrorIsReported checks that the error of an unreachable relay contains the
// ICMP error.
func TestICMPErrorIsReported(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("another error there")
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)})
		if err != nil {
			nettest.Missing(t, "no loopback address "+addr)
		}
		at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		conn.Close()
		if err := askICMP(netip.AddrPortFrom(at.Addr().Unmap(), at.Port())); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: %v", at, err)
		}
	}
}
