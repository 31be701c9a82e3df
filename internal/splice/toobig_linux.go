package splice

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tellEvery is how often an end is told again that its packets are too big, while they are on
	// their way: the message may get lost.
	tellEvery = 200 * time.Millisecond
	// minMTU4 and minMTU6 are the smallest MTUs that an end is told (RFC 1191 §3, RFC 8200 §5).
	minMTU4, minMTU6 = 576, 1280
)

// oversize is what is known of packets of a direction that were too big for the path to the other end.
// Their sender has to send the same bytes in smaller packets: without that no way back is possible,
// since it waits until all bytes are acknowledged.
type oversize struct {
	mtu  uint16    // of the path; 0: none was too big
	told time.Time // when the sender was told
}

// noteTooBig notes that packets of a direction are too big for an MTU, and tells their sender.
func (k *keeper) noteTooBig(p *Pair, d direction, mtu uint16, now time.Time) {
	t := &p.oversize[d]
	least := uint16(minMTU4)
	if p.entry.Halves[d].Flags&halfV6 != 0 {
		least = minMTU6
	}
	mtu = max(mtu, least)
	if t.mtu == 0 || mtu < t.mtu {
		*t = oversize{mtu: mtu}
	}
	k.tellTooBig(p, now)
}

// lookTooBig looks for packets that were too big, and lets the programs tell of the next ones. The event, if
// there is one, has the MTU of an ICMP message; that is 0 from an old router.
func (k *keeper) lookTooBig(p *Pair, e event) {
	for i := range p.entry.Halves {
		h := &p.entry.Halves[i]
		seen := atomic.AndUint32(&h.Seen, ^uint32(seenTooBig|seenICMP))
		if seen&seenTooBig != 0 {
			k.noteTooBig(p, direction(i), h.Mtu, time.Now())
		}
		// Without an event the MTU is not known: the next message will tell.
		if seen&seenICMP != 0 && e.What == wanted && int(e.Direction) == i {
			k.noteTooBig(p, direction(i), e.MTU, time.Now())
		}
	}
}

// tellTooBig tells the senders of packets that are too big.
func (k *keeper) tellTooBig(p *Pair, now time.Time) {
	for i := range p.oversize {
		t := &p.oversize[i]
		if t.mtu == 0 || now.Sub(t.told) < tellEvery {
			continue
		}
		t.told = now
		if err := k.sendTooBig(p, direction(i), t.mtu); err != nil {
			k.log.Warn("an end cannot be told that its packets are too big", "end", p.ends[i].remote, "mtu", t.mtu, "err", err)
		}
	}
}

// sendTooBig sends the end from which the packets of a direction come an ICMP message, as a router on the
// path would (RFC 1191 §4, RFC 4443 §3.2). It is about the first byte that the other end has not
// acknowledged.
func (k *keeper) sendTooBig(p *Pair, d direction, mtu uint16) error {
	end := p.ends[d]
	start := binary.BigEndian.AppendUint16(nil, end.remote.Port())
	start = binary.BigEndian.AppendUint16(start, end.local.Port())
	start = binary.BigEndian.AppendUint32(start, p.entry.Halves[1-d].maxAck()-p.entry.Halves[d].SeqAdd)
	family, protocol, message := unix.AF_INET, unix.IPPROTO_ICMP, tooBig4(end, start, mtu)
	if end.local.Addr().Is6() {
		family, protocol, message = unix.AF_INET6, unix.IPPROTO_ICMPV6, tooBig6(end, start, mtu)
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	if mark := p.notes[d].Settings.mark(); mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return fmt.Errorf("set mark: %w", err)
		}
	}
	// Raw sockets have no ports.
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(end.local.Addr(), 0))); err != nil {
		return fmt.Errorf("bind raw socket: %w", err)
	}
	return unix.Sendto(fd, message, unix.MSG_DONTWAIT, sockaddr(netip.AddrPortFrom(end.remote.Addr(), 0)))
}

// tooBig4 returns an ICMP message about a packet from an end whose TCP header begins with start.
func tooBig4(end tuple, start []byte, mtu uint16) []byte {
	m := binary.BigEndian.AppendUint16([]byte{3, 4, 0, 0, 0, 0}, mtu) // unreachable, fragmentation needed
	m = append(m, 0x45, 0)
	m = binary.BigEndian.AppendUint16(m, mtu+1)
	m = append(m, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0) // DF
	m = append(append(m, end.remote.Addr().AsSlice()...), end.local.Addr().AsSlice()...)
	m = append(m, start...)
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}

// tooBig6 is tooBig4 for IPv6. The kernel sets the checksum.
func tooBig6(end tuple, start []byte, mtu uint16) []byte {
	m := binary.BigEndian.AppendUint32([]byte{2, 0, 0, 0}, uint32(mtu))
	m = append(m, 0x60, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, mtu+1-40)
	m = append(m, unix.IPPROTO_TCP, 64)
	m = append(append(m, end.remote.Addr().AsSlice()...), end.local.Addr().AsSlice()...)
	return append(m, start...)
}
