//go:build !linux

package netmon

import (
	"fmt"
	"net"
	"net/netip"
)

func openSystem(conf *Config) (system, error) {
	return &poll{lister: func() ([]Address, error) { return interfaces(conf.All) }, interval: conf.Interval}, nil
}

// interfaces lists the addresses of all interfaces, or of those that are up and not
// loopback. It skips an interface that goes away meanwhile.
func interfaces(all bool) ([]Address, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var addrs []Address
	for _, i := range list {
		if !all && (i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0) {
			continue
		}
		of, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range of {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			addr := prefix.Addr().Unmap()
			if addr.Is6() && addr.IsLinkLocalUnicast() {
				addr = addr.WithZone(i.Name)
			}
			addrs = append(addrs, Address{Interface: i.Name, Addr: addr})
		}
	}
	return addrs, nil
}
