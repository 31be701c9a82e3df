package quota

import (
	"fmt"
	"net/netip"
)

// ParsePrefix reads a prefix, such as 192.0.2.0/24, or an address, which stands for itself
// alone: 192.0.2.7 is 192.0.2.7/32. IPv4 mapped into IPv6 becomes IPv4. Bits beyond the
// length, as in 192.0.2.7/24, are an error, because it is not clear what was meant. Errors
// wrap [ErrPrefix].
func ParsePrefix(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, fmt.Errorf("%w: none given", ErrPrefix)
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return plainPrefix(netip.PrefixFrom(addr, addr.BitLen()))
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: %q", ErrPrefix, text)
	}
	masked, err := plainPrefix(p)
	if err == nil && p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%w: %v has bits beyond its length: want %v", ErrPrefix, p, masked)
	}
	return masked, err
}

// plainPrefix returns a prefix in the form in which the package keeps and returns all of
// them: without the bits beyond its length, and IPv4 if it is IPv4 mapped into IPv6.
func plainPrefix(p netip.Prefix) (netip.Prefix, error) {
	addr, bits := p.Addr(), p.Bits()
	switch {
	case !p.IsValid():
		return netip.Prefix{}, fmt.Errorf("%w: it is empty", ErrPrefix)
	case addr.Is4In6() && bits < 96:
		return netip.Prefix{}, fmt.Errorf("%w: %v covers both IPv4 and IPv6 addresses", ErrPrefix, p)
	case addr.Is4In6():
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits).Masked(), nil
}
