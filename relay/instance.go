package relay

import (
	"net"
	"os"
	"slices"
	"strings"
)

// instance names this relay among those with the same secret, and is the same after
// a restart: by the host's name, the addresses that the sockets are bound to, and,
// if that is all addresses, those of the host and of its interfaces' hardware. If
// one of these changes, peers just find out later that the relay has restarted.
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

// hostParts are the addresses of this host that are not everyone's.
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
