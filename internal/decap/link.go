package decap

import "encoding/binary"

// LinkType is the link layer of a frame: a LINKTYPE_ value of pcap.
type LinkType uint16

// The known link layers (https://www.tcpdump.org/linktypes.html).
const (
	LinkNull      LinkType = 0 // BSD loopback, family in the byte order of the host
	LinkEthernet  LinkType = 1
	LinkPPP       LinkType = 9
	LinkRawDLT12  LinkType = 12 // LinkRaw as some systems write it
	LinkRawDLT14  LinkType = 14
	LinkPPPHDLC   LinkType = 50
	LinkPPPoE     LinkType = 51
	LinkRaw       LinkType = 101 // IPv4 or IPv6
	LinkCiscoHDLC LinkType = 104
	LinkLoop      LinkType = 108 // OpenBSD loopback, family in network order
	LinkLinuxSLL  LinkType = 113
	LinkIPv4      LinkType = 228
	LinkIPv6      LinkType = 229
	LinkLinuxSLL2 LinkType = 276
)

// EtherTypes, and protocol numbers of PPP.
const (
	etherIPv4   = 0x0800
	etherVLAN   = 0x8100 // IEEE 802.1Q
	etherTEB    = 0x6558 // Ethernet in a tunnel
	etherIPv6   = 0x86dd
	etherPPP    = 0x880b
	etherMPLS   = 0x8847
	etherPPPoE  = 0x8864
	etherQinQ   = 0x88a8 // IEEE 802.1ad
	etherOldQ   = 0x9100
	pppIPv4     = 0x0021
	pppIPv6     = 0x0057
	pppShort4   = 0x21 // with a compressed protocol field (RFC 1661 §6.5)
	pppShort6   = 0x57
	minEtherLen = 14
)

// linkLayer reads a frame.
func linkLayer(link LinkType, b []byte, d *Datagram, depth int) Reason {
	switch link {
	case LinkEthernet:
		return ethernet(b, d, depth)
	case LinkRaw, LinkRawDLT12, LinkRawDLT14, LinkIPv4, LinkIPv6:
		return ip(b, d, depth)
	case LinkNull, LinkLoop:
		if len(b) < 4 {
			return Truncated
		}
		return ip(b[4:], d, depth) // the family's numbers differ by system, so the IP version decides
	case LinkLinuxSLL:
		return after(b, 14, 16, d, depth)
	case LinkLinuxSLL2:
		return after(b, 0, 20, d, depth)
	case LinkCiscoHDLC:
		return after(b, 2, 4, d, depth)
	case LinkPPP, LinkPPPHDLC:
		return ppp(b, d, depth)
	case LinkPPPoE:
		return pppoe(b, d, depth)
	}
	return Link
}

// after reads the packet after a header, whose EtherType is at an offset.
func after(b []byte, ether, header int, d *Datagram, depth int) Reason {
	if len(b) < header {
		return Truncated
	}
	return payload(binary.BigEndian.Uint16(b[ether:]), b[header:], d, depth)
}

// ethernet reads an Ethernet frame.
func ethernet(b []byte, d *Datagram, depth int) Reason {
	if len(b) >= minEtherLen && binary.BigEndian.Uint16(b[minEtherLen-2:]) == etherIPv4 { // most frames
		return ip(b[minEtherLen:], d, depth)
	}
	return after(b, minEtherLen-2, minEtherLen, d, depth)
}

// payload reads the packet of an EtherType, after tags and labels.
func payload(ether uint16, b []byte, d *Datagram, depth int) Reason {
	for range maxHeaders {
		switch ether {
		case etherIPv4, etherIPv6:
			return ip(b, d, depth)
		case etherVLAN, etherQinQ, etherOldQ:
			if len(b) < 4 {
				return Truncated
			}
			ether, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherMPLS:
			return mpls(b, d, depth)
		case etherPPPoE:
			return pppoe(b, d, depth)
		case etherPPP:
			return ppp(b, d, depth)
		case etherTEB:
			return ethernet(b, d, depth)
		default:
			return Link
		}
	}
	return Depth
}

// mpls reads the packet after MPLS labels (RFC 3032 §2.1).
func mpls(b []byte, d *Datagram, depth int) Reason {
	for range maxHeaders {
		if len(b) < 4 {
			return Truncated
		}
		bottom := b[2]&1 != 0
		if b = b[4:]; bottom {
			return ip(b, d, depth)
		}
	}
	return Depth
}

// pppoe reads a PPPoE session frame (RFC 2516 §4).
func pppoe(b []byte, d *Datagram, depth int) Reason {
	if len(b) < 6 {
		return Truncated
	}
	if b[0] != 0x11 || b[1] != 0 {
		return Link
	}
	return ppp(b[6:], d, depth)
}

// ppp reads a PPP frame with or without the HDLC address and control fields (RFC 1662
// §3.1). The protocol field has one or two bytes.
func ppp(b []byte, d *Datagram, depth int) Reason {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) < 2 {
		return Truncated
	}
	switch p := binary.BigEndian.Uint16(b); {
	case p == pppIPv4 || p == pppIPv6:
		return ip(b[2:], d, depth)
	case b[0] == pppShort4 || b[0] == pppShort6:
		return ip(b[1:], d, depth)
	}
	return Link
}
