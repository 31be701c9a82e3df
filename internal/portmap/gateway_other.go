//go:build !linux

package portmap

import "net/netip"

// gateway returns a guess: the first address of the /24 that this host's packets come from,
// as in most homes.
func gateway() (via, local netip.Addr, err error) {
	local, err = towards(netip.AddrFrom4([4]byte{192, 0, 2, 1}))
	if err != nil {
		return netip.Addr{}, netip.Addr{}, err
	}
	prefix, err := local.Prefix(24)
	return prefix.Addr().Next(), local, err
}
