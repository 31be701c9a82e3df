package relay

import (
	"net"
	"os"
	"slices"
	"strings"
)

// instance returns a name that differs between relays with the same secret, and is the
// same after a restart. It consists of the host's name and the addresses that the sockets
// are bound to; if one is bound to all addresses, also the host's IP and hardware
// addresses. If one of these changes over a restart, the relay's stateless resets do not
// fit, and its clients find out by a timeout that it has restarted.
func (s *sockets) instance() string {
	var parts []string
	all := false
	for i := range s.groups {
		addr := s.groups[i].addr
		parts = append(parts, addr.String())
		all = all || addr.Addr().IsUnspecified()
	}
	if all {
		parts = append(parts, hostParts()...)
	}
	slices.Sort(parts)
	name, _ := os.Hostname()
	return strings.Join(append([]string{name}, slices.Compact(parts)...), "\x00")
}

// hostParts returns the IP and hardware addresses by which this host differs from others.
func hostParts() []string {
	var parts []string
	interfaces, _ := net.Interfaces()
	for i := range interfaces {
		if interfaces[i].Flags&net.FlagLoopback == 0 {
			parts = append(parts, interfaces[i].HardwareAddr.String())
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, ok := a.(*net.IPNet); ok && prefix.IP.IsGlobalUnicast() {
			parts = append(parts, prefix.IP.String())
		}
	}
	return parts
}
