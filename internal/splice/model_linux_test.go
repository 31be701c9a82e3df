package splice

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// model is the programs in Go, without regard to time. It does with one packet what the programs
// do, and is as simple as it can be: it works on bytes, and makes checksums anew.
type model struct {
	pair     splicePair
	counters map[Reason]uint64
	events   []event
}

// Verdicts of TCX programs.
const (
	next     = -1
	shot     = 2
	redirect = 7
)

// view is a frame that the programs may handle: a TCP segment over IP without options.
type view struct {
	frame    []byte
	ip, tcp  int // where the headers begin
	header   int // length of the TCP header
	len      int // of the payload
	src, dst netip.AddrPort
	gso      int
	later    uint32 // by how much the programs change the sequence number first
}

func (v *view) u8(at int) *byte        { return &v.frame[at] }
func (v *view) u16(at int) uint16      { return binary.BigEndian.Uint16(v.frame[at:]) }
func (v *view) u32(at int) uint32      { return binary.BigEndian.Uint32(v.frame[at:]) }
func (v *view) put16(at int, x uint16) { binary.BigEndian.PutUint16(v.frame[at:], x) }
func (v *view) put32(at int, x uint32) { binary.BigEndian.PutUint32(v.frame[at:], x) }

func (v *view) v6() bool          { return v.ip+40 == v.tcp }
func (v *view) seq() uint32       { return v.u32(v.tcp+4) + v.later }
func (v *view) ack() uint32       { return v.u32(v.tcp + 8) }
func (v *view) flags() uint16     { return v.u16(v.tcp+12) & 0x1ff }
func (v *view) window() uint32    { return uint32(v.u16(v.tcp + 14)) }
func (v *view) has(f uint16) bool { return v.flags()&f != 0 }

// options returns the bytes of the options.
func (v *view) options() []byte { return v.frame[v.tcp+20 : v.tcp+v.header] }

// end is the sequence number after the segment.
func (v *view) end() uint32 {
	end := v.seq() + uint32(v.len)
	if v.has(fin) {
		end++
	}
	return end
}

// viewIP reads the IP header. It returns the protocol and the length of the payload.
func viewIP(frame []byte, gso int) (v *view, protocol byte, rest int, ok bool) {
	v = &view{frame: frame, ip: 14, gso: gso}
	if len(frame) < 14 {
		return nil, 0, 0, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(frame) < 34 || frame[14] != 0x45 || v.u16(20)&0x3fff != 0 {
			return nil, 0, 0, false
		}
		v.tcp, protocol, rest = 34, frame[23], int(v.u16(16))-20
		if v.u16(16) == 0 && gso > 0 {
			rest = len(frame) - 34
		}
		v.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(frame[26:])), 0)
		v.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(frame[30:])), 0)
	case 0x86dd:
		if len(frame) < 54 || frame[14]>>4 != 6 {
			return nil, 0, 0, false
		}
		v.tcp, protocol, rest = 54, frame[20], int(v.u16(18))
		if rest == 0 && gso > 0 {
			rest = len(frame) - 54
		}
		v.src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(frame[22:])), 0)
		v.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(frame[38:])), 0)
	default:
		return nil, 0, 0, false
	}
	return v, protocol, rest, rest >= 0 && rest <= len(frame)-v.tcp
}

// viewTCP reads the TCP header.
func (v *view) viewTCP(rest int) bool {
	if len(v.frame) < v.tcp+20 {
		return false
	}
	v.header = int(v.frame[v.tcp+12]>>4) * 4
	if v.header < 20 || v.header > rest {
		return false
	}
	v.len = rest - v.header
	v.src = netip.AddrPortFrom(v.src.Addr(), v.u16(v.tcp))
	v.dst = netip.AddrPortFrom(v.dst.Addr(), v.u16(v.tcp+2))
	return true
}

// find returns the halves of the direction that comes from a remote end, or nil.
func (m *model) find(remote, local netip.AddrPort) (d int, h, other *spliceHalf) {
	for d := range 2 {
		l, r := m.pair.Halves[1-d].addrs()
		if l == local && r == remote {
			return d, &m.pair.Halves[d], &m.pair.Halves[1-d]
		}
	}
	return 0, nil, nil
}

func (m *model) count(r Reason) { m.counters[r]++ }

func (m *model) mark(h *spliceHalf, bit uint32) bool {
	was := h.Seen
	h.Seen |= bit
	return was&bit == 0
}

func (m *model) tell(w what, d int, mtu uint16) {
	m.events = append(m.events, event{Generation: m.pair.Generation, What: w, Direction: uint8(d), MTU: mtu})
}

// beyond says whether a is after b in sequence space.
func beyond(a, b uint32) bool { return int32(a-b) > 0 }

func grow(at *uint32, value uint32) {
	if beyond(value, *at) {
		*at = value
	}
}

// ingress is splice_ingress for a frame to this host. It changes the frame.
func (m *model) ingress(frame []byte, gso int) (verdict int, out []byte) {
	v, protocol, rest, ok := viewIP(frame, gso)
	if !ok {
		return next, frame
	}
	if v.v6() && protocol == 58 || !v.v6() && protocol == 1 {
		m.icmp(v)
	}
	if protocol != 6 || !v.viewTCP(rest) {
		return next, frame
	}
	d, h, other := m.find(v.src, v.dst)
	s := state(m.pair.State)
	if h == nil || s == off || h.Seen&seenReopened != 0 {
		return next, frame
	}
	if v.has(syn) {
		switch {
		case s == closed:
			m.reopen(d, h, other)
			return next, frame
		case s == hold:
			m.count(DroppedHold)
			return shot, frame
		case v.has(ack) || s != active && s != drain:
			m.count(PassedSYN)
			return next, frame
		}
	}
	if s == hold {
		m.count(DroppedHold)
		return shot, frame
	}
	if s == quiet {
		m.track(v, d, h, other, true)
		if !known(v.options()) {
			m.mark(h, seenOptions)
		}
		m.count(Watched)
		return next, frame
	}
	return m.forward(v, s, d, h, other)
}

func (m *model) reopen(d int, h, other *spliceHalf) {
	m.count(Reopened)
	m.mark(other, seenReopened)
	if m.mark(h, seenReopened) {
		m.tell(renewed, d, 0)
	}
}

// forward forwards a packet, if that is possible.
func (m *model) forward(v *view, s state, d int, h, other *spliceHalf) (verdict int, out []byte) {
	ttl, ce := v.frame[22], v.frame[15]&3 == 3
	if v.v6() {
		ttl, ce = v.frame[21], v.frame[15]>>4&3 == 3
	}
	size := v.len
	if v.gso > 0 {
		size = min(size, v.gso)
	}
	switch {
	case ttl <= 1:
		m.count(PassedTTL)
		m.want(v, d, h, other, seenTTL)
		return next, v.frame
	case v.tcp-v.ip+v.header+size > int(h.Mtu):
		m.count(DroppedTooBig)
		m.want(v, d, h, other, seenTooBig)
		return shot, v.frame
	case ce && h.Flags&halfNoECN != 0:
		m.count(DroppedCE)
		return shot, v.frame
	case s == pending && [6]byte(h.Macs[:6]) == [6]byte{}:
		m.count(NoNeighbor)
		return next, v.frame
	}
	if !v.has(syn) {
		expected := other.MaxAck - h.SeqAdd
		if v.len == 0 && !v.has(fin|rst) && beyond(expected, v.seq()+1) && v.believable(h, other) {
			v.later = expected - v.seq()
		}
		m.track(v, d, h, other, false)
		m.count(Forwarded)
	} else {
		m.count(ForwardedSYN)
	}
	m.rewrite(v, s, d, h, other)
	if s == pending { // our socket is not part of the model
		copy(v.frame, h.Macs[:])
		m.counters[Forwarded]--
		m.count(NotCopied)
		return shot, v.frame
	}
	return redirect, v.frame
}

// plausible says whether the end could have sent the data of a segment.
func (v *view) plausible(h, other *spliceHalf) bool {
	oldest := other.MaxAck - h.SeqAdd - 65535<<h.OwnScale - 1
	return !beyond(v.end(), other.MaxEdge-h.SeqAdd+1) && !beyond(oldest, v.seq())
}

// believable says whether the other end may take a segment as one of the end.
func (v *view) believable(h, other *spliceHalf) bool {
	oldest := h.MaxAck - 65535<<h.OutScale
	return v.has(ack) && !beyond(v.ack(), h.MaxEdge+1) && !beyond(oldest, v.ack()) && v.plausible(h, other)
}

func (m *model) want(v *view, d int, h, other *spliceHalf, bit uint32) {
	if v.plausible(h, other) && m.mark(h, bit) {
		m.tell(wanted, d, 0)
	}
}

// track notes what a segment shows.
func (m *model) track(v *view, d int, h, other *spliceHalf, quiet bool) {
	h.Packets++
	h.Bytes += uint64(v.len)
	expected := other.MaxAck - h.SeqAdd
	switch {
	case v.has(rst) && quiet:
		m.mark(h, seenRST)
	case v.has(rst) && v.seq() != expected && v.seq() != h.MaxEnd:
		m.count(Unbelieved)
	case v.has(rst):
		if m.mark(h, seenRST) {
			m.tell(reset, d, 0)
		}
	case !quiet && !v.believable(h, other):
		m.count(Unbelieved)
	case !quiet && beyond(expected, v.end()):
		m.countAgain(v, h)
	default:
		m.noteData(v, h)
		if v.has(ack) {
			m.noteAck(v, d, h, other, quiet)
		}
	}
}

// countAgain counts what was sent before.
func (m *model) countAgain(v *view, h *spliceHalf) {
	if fresh := max(int32(v.end()-h.MaxEnd), 0); v.len > 0 && int(fresh) < v.len {
		h.Retransmitted += uint64(v.len - int(fresh))
	}
}

func (m *model) noteData(v *view, h *spliceHalf) {
	was := h.MaxEnd
	m.countAgain(v, h)
	grow(&h.MaxEnd, v.end())
	if v.has(fin) && !beyond(was, v.end()) {
		h.FinEnd = v.end()
		m.mark(h, seenFIN)
	}
	if val, _, ok := timestamps(v.options()); ok {
		grow(&h.LastTs, val)
	}
}

func (m *model) noteAck(v *view, d int, h, other *spliceHalf, quiet bool) {
	ack := v.ack() - other.SeqAdd
	grow(&h.MaxAck, v.ack())
	grow(&h.MaxEdge, v.ack()+v.window()<<h.InScale)
	grow(&other.MaxEnd, ack)
	h.Window = uint16(v.window())
	if other.Seen&seenFIN != 0 && !beyond(other.FinEnd, ack) {
		if m.mark(h, seenFINAck) && !quiet && other.Seen&seenFINAck != 0 {
			m.tell(finished, d, 0)
		}
	}
}

// timestamps reads the timestamps, if they are the first option.
func timestamps(options []byte) (val, ecr uint32, ok bool) {
	if len(options) < 12 || [4]byte(options) != [4]byte{1, 1, 8, 10} {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(options[4:]), binary.BigEndian.Uint32(options[8:]), true
}

// known says whether options have a layout that the programs translate.
func known(options []byte) bool {
	if _, _, ok := timestamps(options); ok {
		options = options[12:]
	}
	if len(options) == 0 {
		return true
	}
	blocks := []int{10, 18, 26, 34}
	return [3]byte(options) == [3]byte{1, 1, 5} && slices.Contains(blocks, int(options[3])) && len(options) == 2+int(options[3])
}

// rewrite turns the segment into one of the other connection.
func (m *model) rewrite(v *view, s state, d int, h, other *spliceHalf) {
	before := v.tcpSum()
	if v.has(syn) {
		copy(v.options(), slices.Repeat([]byte{1}, 40))
	} else {
		if known(v.options()) {
			m.translate(v.options(), h, other)
		} else {
			copy(v.options(), slices.Repeat([]byte{1}, 40))
			m.count(BlankedOptions)
			m.want(v, d, h, other, seenOptions)
		}
		bytes := v.window() << h.InScale
		if s == drain && v.has(ack) {
			left := int32(other.MaxEnd - (v.ack() - other.SeqAdd))
			bytes = min(bytes, uint32(max(left, 0)))
		}
		v.put16(v.tcp+14, uint16(min(bytes>>h.OutScale, 65535)))
	}
	v.put32(v.tcp+4, v.seq()+h.SeqAdd)
	if v.has(ack) {
		v.put32(v.tcp+8, v.ack()-other.SeqAdd)
	}
	if h.Flags&halfNoECN != 0 {
		v.put16(v.tcp+12, v.u16(v.tcp+12)&^(ece|cwr|ae))
	}
	m.readdress(v, h)
	check := uint64(^v.u16(v.tcp+16)) + v.tcpSum() + uint64(^fold(before))
	v.put16(v.tcp+16, ^fold(check))
}

// readdress changes the addresses and ports, and the rest of the IP header.
func (m *model) readdress(v *view, h *spliceHalf) {
	local, remote := h.addrs()
	v.put16(v.tcp, local.Port())
	v.put16(v.tcp+2, remote.Port())
	noECN := h.Flags&halfNoECN != 0
	if v.v6() {
		copy(v.frame[22:], local.Addr().AsSlice())
		copy(v.frame[38:], remote.Addr().AsSlice())
		*v.u8(21)--
		if noECN {
			*v.u8(15) &^= 3 << 4
		}
		return
	}
	before := sumOf(v.frame[14:24]) + sumOf(v.frame[26:34])
	copy(v.frame[26:], local.Addr().AsSlice())
	copy(v.frame[30:], remote.Addr().AsSlice())
	*v.u8(22)--
	if noECN {
		*v.u8(15) &^= 3
	}
	check := uint64(^v.u16(24)) + sumOf(v.frame[14:24]) + sumOf(v.frame[26:34]) + uint64(^fold(before))
	v.put16(24, ^fold(check))
}

// tcpSum is the sum over the addresses, and the TCP header without the checksum.
func (v *view) tcpSum() uint64 {
	addrs := v.frame[26:34]
	if v.v6() {
		addrs = v.frame[22:54]
	}
	return sumOf(addrs) + sumOf(v.frame[v.tcp:v.tcp+16]) + sumOf(v.frame[v.tcp+18:v.tcp+v.header])
}

// translate translates options of a known layout.
func (m *model) translate(options []byte, h, other *spliceHalf) {
	if val, ecr, ok := timestamps(options); ok {
		binary.BigEndian.PutUint32(options[4:], val+h.TsAdd)
		if ecr != 0 {
			binary.BigEndian.PutUint32(options[8:], ecr-other.TsAdd)
		}
		options = options[12:]
	}
	for at := 4; at < len(options); at += 4 {
		binary.BigEndian.PutUint32(options[at:], binary.BigEndian.Uint32(options[at:])-other.SeqAdd)
	}
}

// icmp handles a message that a packet was too big.
func (m *model) icmp(v *view) {
	f := v.frame[v.tcp:]
	var remote, local netip.AddrPort
	var mtu, inner int
	if v.v6() {
		if len(f) < 8+40+8 || f[0] != 2 || f[1] != 0 || f[8]>>4 != 6 || f[8+6] != 6 {
			return
		}
		inner, mtu = 48, int(min(binary.BigEndian.Uint32(f[4:]), 65535))
		local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(f[16:])), binary.BigEndian.Uint16(f[inner:]))
		remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(f[32:])), binary.BigEndian.Uint16(f[inner+2:]))
	} else {
		if len(f) < 8+20+8 || f[0] != 3 || f[1] != 4 || f[8] != 0x45 || f[8+9] != 6 || binary.BigEndian.Uint16(f[8+6:])&0x1fff != 0 {
			return
		}
		inner, mtu = 28, int(binary.BigEndian.Uint16(f[6:]))
		local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(f[20:])), binary.BigEndian.Uint16(f[inner:]))
		remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(f[24:])), binary.BigEndian.Uint16(f[inner+2:]))
	}
	d, h, other := m.find(remote, local)
	if s := state(m.pair.State); h == nil || s < pending || s > hold {
		return
	}
	seq := binary.BigEndian.Uint32(f[inner+4:])
	if beyond(h.MaxAck, seq) || !beyond(other.MaxEnd+other.SeqAdd, seq) {
		return
	}
	m.count(TooBigICMP)
	if m.mark(other, seenICMP) {
		m.tell(wanted, 1-d, uint16(mtu))
	}
}

// egress is splice_egress for a packet of our host. It changes the frame.
func (m *model) egress(frame []byte, gso int) (verdict int, out []byte) {
	v, protocol, rest, ok := viewIP(frame, gso)
	if !ok || protocol != 6 || !v.viewTCP(rest) {
		return next, frame
	}
	d, h, other := m.find(v.dst, v.src)
	s := state(m.pair.State)
	if h == nil || s == off || h.Seen&seenReopened != 0 {
		return next, frame
	}
	switch {
	case s == quiet || s == pending:
		m.watchOwn(v, s, h, other)
	case s == closed && v.has(syn):
		m.reopen(d, h, other)
	default:
		m.count(Silenced)
		return shot, frame
	}
	return next, frame
}

// watchOwn reduces the window of our socket, makes its timestamp in PENDING no older than what was forwarded
// to the same end, and notes how far the socket lets its peer send.
func (m *model) watchOwn(v *view, s state, h, other *spliceHalf) {
	if !v.has(ack) || v.has(syn|rst) {
		return
	}
	limit := h.MaxEnd
	if s == pending {
		limit = other.MaxAck + uint32(other.Window)<<other.InScale - h.SeqAdd
	}
	if left := uint32(max(int32(limit-v.ack()), 0)) >> h.OwnScale; left < v.window() {
		before := v.tcpSum()
		v.put16(v.tcp+14, uint16(left))
		v.put16(v.tcp+16, ^fold(uint64(^v.u16(v.tcp+16))+v.tcpSum()+uint64(^fold(before))))
		m.count(Clamped)
	}
	val, _, stamped := timestamps(v.options())
	if seen := other.LastTs + other.TsAdd; s == pending && stamped && after(seen, val) {
		before := v.tcpSum()
		v.put32(v.tcp+24, seen)
		v.put16(v.tcp+16, ^fold(uint64(^v.u16(v.tcp+16))+v.tcpSum()+uint64(^fold(before))))
	}
	grow(&other.MaxEdge, v.ack()+v.window()<<h.OwnScale+h.SeqAdd)
}
