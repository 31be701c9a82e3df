package udp

import (
	"net"
	"net/netip"
	"testing"
)

// TestAddrPort checks that mapped IPv4 addresses become plain ones, and that other kinds of
// addresses give the zero AddrPort.
func TestAddrPort(t *testing.T) {
	for _, test := range []struct {
		in   net.Addr
		want string
	}{
		{net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443")), "192.0.2.1:443"},
		{net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:443")), "192.0.2.1:443"},
		{net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:443")), "[2001:db8::1]:443"},
	} {
		if got := AddrPort(test.in); got != netip.MustParseAddrPort(test.want) {
			t.Errorf("%v is %v, want %s", test.in, got, test.want)
		}
	}
	if got := AddrPort(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}); got.IsValid() {
		t.Errorf("a TCP address is %v", got)
	}
}
