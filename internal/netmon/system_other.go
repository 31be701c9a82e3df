//go:build !linux

package netmon

import (
	"fmt"
	"net"
	"net/netip"
)

func openSystem(conf *Config) (system, error) {
	return &poll{lister: interfaces, interval: conf.Interval}, nil
}

// interfaces lists the addresses of the interfaces that are up. An interface
// that goes away meanwhile has none.
func interfaces() ([]Address, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var addrs []Address
	for _, i := range list {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
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
