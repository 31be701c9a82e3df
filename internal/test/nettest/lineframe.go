package nettest

import "encoding/binary"

const (
	etherLen = 14
	ipv4Type = 0x0800
	ipv6Type = 0x86dd
	ipv4Len  = 20
	ipv6Len  = 40
	icmpLen  = 8

	protocolTCP, protocolUDP        = 6, 17
	protocolICMP, protocolICMPv6    = 1, 58
	icmpUnreachable, icmpFragNeeded = 3, 4
	icmpv6TooBig                    = 2
	maxQuote4, maxQuote6            = 576 - ipv4Len - icmpLen, 1280 - ipv6Len - icmpLen
)

// lineFrame is what a line reads of an Ethernet frame.
type lineFrame struct {
	frame     []byte
	version   int  // of IP; 0: anything else
	length    int  // of the IP packet; 0: no IP
	transport bool // TCP or UDP directly behind the IP header
}

func parseFrame(frame []byte) lineFrame {
	f := lineFrame{frame: frame}
	if len(frame) < etherLen {
		return f
	}
	packet := frame[etherLen:]
	var protocol byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case ipv4Type:
		if len(packet) < ipv4Len {
			return f
		}
		f.version, f.length, protocol = 4, int(binary.BigEndian.Uint16(packet[2:])), packet[9]
	case ipv6Type:
		if len(packet) < ipv6Len {
			return f
		}
		f.version, f.length, protocol = 6, ipv6Len+int(binary.BigEndian.Uint16(packet[4:])), packet[6]
	}
	f.transport = protocol == protocolTCP || protocol == protocolUDP
	return f
}

// markCE sets CE if the packet has ECT, and reports whether it had (RFC 3168 §5).
func (f lineFrame) markCE() bool {
	packet := f.frame[etherLen:]
	switch {
	case f.version == 4 && packet[1]&3 != 0:
		packet[1] |= 3
		header := packet[:min(int(packet[0]&0xf)*4, len(packet))]
		binary.BigEndian.PutUint16(header[10:], 0)
		binary.BigEndian.PutUint16(header[10:], internetChecksum(header))
		return true
	case f.version == 6 && packet[1]&0x30 != 0:
		packet[1] |= 0x30
		return true
	}
	return false
}

// tooBig returns the frame with the ICMP message that the packet is larger than an MTU, or
// nil if the packet must not be answered with one. The message comes from the address that
// the packet is for, since the line has none.
func (f lineFrame) tooBig(mtu int) []byte {
	packet := f.frame[etherLen:]
	if f.version == 4 && packet[6]&0x40 == 0 { // DF
		return nil
	}
	answer := append([]byte(nil), f.frame[6:12]...)
	answer = append(append(answer, f.frame[:6]...), f.frame[12:14]...)
	if f.version == 4 {
		return append(answer, tooBig4(packet, mtu)...)
	}
	return append(answer, tooBig6(packet, mtu)...)
}

// tooBig4 returns an ICMP message with the next-hop MTU of RFC 1191 §4.
func tooBig4(packet []byte, mtu int) []byte {
	quote := packet[:min(len(packet), maxQuote4)]
	icmp := []byte{icmpUnreachable, icmpFragNeeded, 0, 0, 0, 0}
	icmp = append(binary.BigEndian.AppendUint16(icmp, uint16(mtu)), quote...)
	binary.BigEndian.PutUint16(icmp[2:], internetChecksum(icmp))
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocolICMP, 0, 0}
	ip = append(append(ip, packet[16:20]...), packet[12:16]...)
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Len+len(icmp)))
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	return append(ip, icmp...)
}

// tooBig6 returns the message of RFC 4443 §3.2.
func tooBig6(packet []byte, mtu int) []byte {
	quote := packet[:min(len(packet), maxQuote6)]
	icmp := binary.BigEndian.AppendUint32([]byte{icmpv6TooBig, 0, 0, 0}, uint32(mtu))
	icmp = append(icmp, quote...)
	addresses := append(append([]byte(nil), packet[24:40]...), packet[8:24]...)
	pseudo := binary.BigEndian.AppendUint32(append([]byte(nil), addresses...), uint32(len(icmp)))
	pseudo = append(append(pseudo, 0, 0, 0, protocolICMPv6), icmp...)
	binary.BigEndian.PutUint16(icmp[2:], internetChecksum(pseudo))
	ip := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(icmp)))
	ip = append(append(ip, protocolICMPv6, 64), addresses...)
	return append(ip, icmp...)
}

// internetChecksum returns the checksum of RFC 1071.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
