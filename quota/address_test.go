package quota

import (
	"net"
	"net/netip"
	"testing"
)

// TestAddressesArePlain checks that the address of a packet has no zone and is not mapped into
// IPv6, so that it compares equal to the address of the same client everywhere.
func TestAddressesArePlain(t *testing.T) {
	for _, test := range []struct {
		in   net.Addr
		want netip.AddrPort
	}{
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "eth0"}, netip.MustParseAddrPort("[fe80::1]:1")},
		{net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")), netip.MustParseAddrPort("192.0.2.1:1")},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, netip.AddrPort{}},
	} {
		if got := addrPort(test.in); got != test.want {
			t.Errorf("%v is %v, want %v", test.in, got, test.want)
		}
	}
}
