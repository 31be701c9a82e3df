package decap

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	source4 = netip.MustParseAddrPort("192.0.2.1:1234")
	dest4   = netip.MustParseAddrPort("198.51.100.2:443")
	source6 = netip.MustParseAddrPort("[2001:db8::1]:1234")
	dest6   = netip.MustParseAddrPort("[2001:db8::2]:443")
)

const content = "a datagram that is carried"

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

func udpOf(src, dst uint16, payload []byte) []byte {
	return join(be16(int(src)), be16(int(dst)), be16(8+len(payload)), []byte{0, 0}, payload)
}

// ip4Of returns an IPv4 packet with four-byte options.
func ip4Of(proto byte, options int, payload []byte) []byte {
	h := make([]byte, 20+options)
	h[0] = 0x40 | byte(5+options/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	h[9] = proto
	copy(h[12:], source4.Addr().AsSlice())
	copy(h[16:], dest4.Addr().AsSlice())
	return join(h, payload)
}

func ip6Of(next byte, payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6] = 0x60, next
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], source6.Addr().AsSlice())
	copy(h[24:], dest6.Addr().AsSlice())
	return join(h, payload)
}

func etherOf(kind int, payload []byte) []byte { return join(make([]byte, 12), be16(kind), payload) }

var (
	udp4 = ip4Of(protoUDP, 0, udpOf(1234, 443, []byte(content)))
	udp6 = ip6Of(protoUDP, udpOf(1234, 443, []byte(content)))
)

// frames returns frames that have the datagram.
func frames() map[string]struct {
	link  LinkType
	frame []byte
	six   bool
} {
	type f = struct {
		link  LinkType
		frame []byte
		six   bool
	}
	extended := join([]byte{protoDstOpts, 0, 0, 0, 0, 0, 0, 0}, []byte{protoAH, 0, 0, 0, 0, 0, 0, 0},
		[]byte{protoFragment, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{protoUDP, 0, 0, 1, 0, 0, 0, 0}, udp6[40:])
	vxlan := ip4Of(protoUDP, 0, udpOf(5, portVXLAN, join([]byte{8, 0, 0, 0, 0, 0, 1, 0}, etherOf(etherIPv6, udp6))))
	geneve := ip4Of(protoUDP, 0, udpOf(5, portGeneve, join([]byte{1, 0}, be16(etherTEB), make([]byte, 8), etherOf(etherIPv4, udp4))))
	genevePlain := ip6Of(protoUDP, udpOf(5, portGeneve, join([]byte{0, 0}, be16(etherIPv4), make([]byte, 4), udp4)))
	return map[string]f{
		"raw IPv4":          {LinkRaw, udp4, false},
		"raw IPv6":          {LinkRaw, udp6, true},
		"IPv4 options":      {LinkRaw, ip4Of(protoUDP, 12, udp4[20:]), false},
		"IPv6 extensions":   {LinkRaw, ip6Of(protoHopByHop, extended), true},
		"Ethernet":          {LinkEthernet, etherOf(etherIPv4, udp4), false},
		"padding":           {LinkEthernet, join(etherOf(etherIPv4, udp4), make([]byte, 20)), false},
		"VLAN":              {LinkEthernet, etherOf(etherVLAN, join(be16(5), be16(etherIPv6), udp6)), true},
		"QinQ":              {LinkEthernet, etherOf(etherQinQ, join(be16(5), be16(etherVLAN), be16(6), be16(etherIPv4), udp4)), false},
		"MPLS":              {LinkEthernet, etherOf(etherMPLS, join([]byte{0, 1, 0, 64, 0, 1, 1, 64}, udp4)), false},
		"PPPoE":             {LinkEthernet, etherOf(etherPPPoE, join([]byte{0x11, 0, 0, 1, 0, 0}, be16(pppIPv6), udp6)), true},
		"PPP":               {LinkPPP, join([]byte{0xff, 0x03}, be16(pppIPv4), udp4), false},
		"PPP without HDLC":  {LinkPPP, join(be16(pppIPv4), udp4), false},
		"PPP compressed":    {LinkPPPHDLC, join([]byte{pppShort6}, udp6), true},
		"Cisco HDLC":        {LinkCiscoHDLC, join([]byte{0x0f, 0}, be16(etherIPv4), udp4), false},
		"BSD loopback":      {LinkNull, join([]byte{2, 0, 0, 0}, udp4), false},
		"BSD loopback IPv6": {LinkNull, join([]byte{30, 0, 0, 0}, udp6), true},
		"OpenBSD loopback":  {LinkLoop, join([]byte{0, 0, 0, 24}, udp6), true},
		"SLL":               {LinkLinuxSLL, join(make([]byte, 14), be16(etherIPv4), udp4), false},
		"SLL2":              {LinkLinuxSLL2, join(be16(etherIPv6), make([]byte, 18), udp6), true},
		"SLL2 VLAN":         {LinkLinuxSLL2, join(be16(etherVLAN), make([]byte, 18), be16(5), be16(etherIPv6), udp6), true},
		"GRE":               {LinkRaw, ip4Of(protoGRE, 0, join([]byte{0xb0, 0}, be16(etherIPv6), make([]byte, 12), udp6)), true},
		"IPv6 in IPv4":      {LinkRaw, ip4Of(protoIPv6, 0, udp6), true},
		"IPv4 in IPv6":      {LinkRaw, ip6Of(protoIPv4, udp4), false},
		"VXLAN":             {LinkRaw, vxlan, true},
		"Geneve":            {LinkRaw, geneve, false},
		"Geneve without L2": {LinkRaw, genevePlain, false},
	}
}

func TestUDP(t *testing.T) {
	for name, f := range frames() {
		var d Datagram
		src, dst := source4, dest4
		if f.six {
			src, dst = source6, dest6
		}
		if why := UDP(f.link, f.frame, &d); why != Found {
			t.Errorf("%s: got %v, want a datagram", name, why)
		} else if d.Src.AddrPort() != src || d.Dst.AddrPort() != dst || string(d.Payload) != content || d.Length != len(content) {
			t.Errorf("%s: got %v > %v, %q of %d", name, d.Src, d.Dst, d.Payload, d.Length)
		}
		// Whatever it is cut to, it is no panic, and no more than was captured.
		for n := range f.frame {
			if why := UDP(f.link, f.frame[:n], &d); why == Found && len(d.Payload) > n {
				t.Errorf("%s: payload of %d in %d bytes", name, len(d.Payload), n)
			}
		}
	}
}

func TestNoDatagram(t *testing.T) {
	second := append([]byte(nil), udp4...)
	second[7] = 1
	second6 := ip6Of(protoFragment, join([]byte{protoUDP, 0, 0, 8, 0, 0, 0, 0}, udp6[40:]))
	var endless []byte
	for range 20 {
		endless = append(endless, join(be16(1), be16(etherVLAN))...)
	}
	nested := udp4
	for range 10 {
		nested = ip4Of(protoIPv4, 0, nested)
	}
	for name, f := range map[string]struct {
		link  LinkType
		frame []byte
		want  Reason
	}{
		"nothing":         {LinkEthernet, nil, Truncated},
		"ARP":             {LinkEthernet, etherOf(0x0806, make([]byte, 28)), Link},
		"unknown link":    {147, udp4, Link},
		"TCP":             {LinkRaw, ip4Of(6, 0, make([]byte, 20)), NotUDP},
		"ICMPv6":          {LinkRaw, ip6Of(58, make([]byte, 20)), NotUDP},
		"later fragment":  {LinkRaw, second, Fragment},
		"later fragment6": {LinkRaw, second6, Fragment},
		"no IP version":   {LinkRaw, make([]byte, 40), Link},
		"short IHL":       {LinkRaw, append([]byte{0x44}, udp4[1:]...), Malformed},
		"UDP length":      {LinkRaw, ip4Of(protoUDP, 0, join(be16(1), be16(2), be16(7), be16(0))), Malformed},
		"tags":            {LinkEthernet, etherOf(etherVLAN, endless), Depth},
		"tunnels":         {LinkRaw, nested, Depth},
	} {
		var d Datagram
		if got := UDP(f.link, f.frame, &d); got != f.want {
			t.Errorf("%s: got %v, want %v", name, got, f.want)
		}
	}
}

// TestECN checks the codepoints of both families, and that in a tunnel the inner header's counts.
func TestECN(t *testing.T) {
	mark4 := func(b []byte, ecn ECN) []byte {
		b = append([]byte(nil), b...)
		b[1] = 0xb8 | byte(ecn) // DSCP EF
		return b
	}
	mark6 := func(b []byte, ecn ECN) []byte {
		b = append([]byte(nil), b...)
		b[0], b[1] = 0x6b, 0x8f|byte(ecn)<<4
		return b
	}
	for ecn := NotECT; ecn <= CE; ecn++ {
		for name, frame := range map[string][]byte{
			"IPv4":          mark4(udp4, ecn),
			"IPv6":          mark6(udp6, ecn),
			"in a tunnel":   mark4(ip4Of(protoIPv6, 0, mark6(udp6, ecn)), ECT1),
			"not a tunnel":  mark4(ip4Of(protoUDP, 0, udpOf(5, portVXLAN, join(make([]byte, 8), udp4))), ecn),
			"with options":  mark4(ip4Of(protoUDP, 12, udp4[20:]), ecn),
			"with IPv6 ext": mark6(ip6Of(protoDstOpts, join([]byte{protoUDP, 0, 0, 0, 0, 0, 0, 0}, udp6[40:])), ecn),
		} {
			var d Datagram
			if why := UDP(LinkRaw, frame, &d); why != Found || d.ECN != ecn {
				t.Errorf("%s: got %v, codepoint %d, want %d", name, why, d.ECN, ecn)
			}
		}
	}
}

// TestFirstFragment checks that the length of a first fragment is that of the whole
// datagram.
func TestFirstFragment(t *testing.T) {
	first := append([]byte(nil), udp4...)
	first[6] = 0x20
	binary.BigEndian.PutUint16(first[24:], 3008)
	var d Datagram
	if why := UDP(LinkRaw, first, &d); why != Found || d.Length != 3000 || string(d.Payload) != content {
		t.Errorf("got %v, %q of %d, want %q of 3000", why, d.Payload, d.Length, content)
	}
}

func TestNoAllocations(t *testing.T) {
	all := frames()
	var d Datagram
	if n := testing.AllocsPerRun(10, func() {
		for _, f := range all {
			UDP(f.link, f.frame, &d)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d frames", n, len(all))
	}
}

// FuzzUDP checks that a payload is part of the frame.
func FuzzUDP(f *testing.F) {
	for _, seed := range frames() {
		f.Add(uint16(seed.link), seed.frame)
	}
	f.Fuzz(func(t *testing.T, link uint16, frame []byte) {
		var d Datagram
		if UDP(LinkType(link), frame, &d) == Found && (len(d.Payload) > len(frame) || len(d.Payload) > d.Length) {
			t.Fatalf("payload of %d, length %d, in %d bytes", len(d.Payload), d.Length, len(frame))
		}
	})
}
