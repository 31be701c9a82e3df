package splice

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// state is what the programs do with the packets of a pair: enum state in bpf/maps.h.
type state uint32

const (
	off state = iota
	quiet
	pending
	active
	drain
	hold
	closed
)

var stateNames = [...]string{"off", "quiet", "pending", "active", "drain", "hold", "closed"}

func (s state) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// Bits of spliceHalf.Seen: what the programs have seen of a direction.
const (
	seenFIN      = 1 << iota // its end has finished, at FinEnd
	seenFINAck               // its end has acknowledged the other end's FIN
	seenRST                  // its end has reset the connection
	seenOptions              // options in a layout that the programs do not know
	seenTooBig               // a packet that is larger than the MTU to the other end
	seenICMP                 // an ICMP message that such a packet was too big for the path
	seenTTL                  // a packet with a TTL that cannot be decremented
	seenReopened             // a new connection has the addresses of a leg
)

// Bits of spliceHalf.Flags, which are the same in both halves.
const (
	halfV6    = 1 << iota // the addresses are IPv6
	halfNoECN             // one of the connections has no ECN
)

// direction is the index of a half: the packets of the client, or those of the upstream.
type direction uint32

const (
	fromClient direction = iota
	fromUpstream
)

// what says what an event is about: enum what in bpf/maps.h.
type what uint8

const (
	finished what = iota // both ends have finished, and have acknowledged each other's FIN
	reset                // an end has reset the connection
	wanted               // the pair should go back to userspace: see spliceHalf.Seen
	renewed              // a new connection has the addresses of a closed pair
)

// event is struct event in bpf/maps.h.
type event struct {
	Pair       uint32
	Generation uint32
	What       what
	Direction  uint8
	MTU        uint16 // of an ICMP message; otherwise 0
}

const eventSize = 12

// parseEvent reads an event from the ring. It returns false if the size is wrong.
func parseEvent(b []byte) (event, bool) {
	if len(b) < eventSize {
		return event{}, false
	}
	return event{
		Pair: binary.NativeEndian.Uint32(b), Generation: binary.NativeEndian.Uint32(b[4:]),
		What: what(b[8]), Direction: b[9], MTU: binary.NativeEndian.Uint16(b[10:]),
	}, true
}

// Sizes of the kernel's structures, which the program and Go agree on.
const (
	pairSize = 256
	setSlots = len(spliceFlowSet{}.Slots)
	hashKeys = 10
)

// pairTable is the map of pairs in memory. The programs change the second part of each half at any
// time, so everything that they write is read atomically.
type pairTable struct {
	pairs []splicePair
}

// newPairTable maps the map of pairs into memory. The memory stays mapped for as long as anybody
// refers to the table.
func newPairTable(m *ebpf.Map) (*pairTable, error) {
	t := new(pairTable)
	var err error
	t.pairs, err = mapValues[splicePair](t, m)
	return t, err
}

// mapValues maps the values of a map into memory, until the owner is unreachable.
func mapValues[T, Owner any](owner *Owner, m *ebpf.Map) ([]T, error) {
	size, page := int(m.ValueSize())*int(m.MaxEntries()), os.Getpagesize()
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %v into memory: %w", m, err)
	}
	runtime.AddCleanup(owner, func(b []byte) { _ = unix.Munmap(b) }, b)
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), m.MaxEntries()), nil
}

// setState tells the programs what to do with the packets of a pair.
func (p *splicePair) setState(s state) { atomic.StoreUint32(&p.State, uint32(s)) }

// setAddrs sets the addresses of the packets of a half as they leave.
func (h *spliceHalf) setAddrs(local, remote netip.AddrPort) {
	h.Src, h.Sport = words(local)
	h.Dst, h.Dport = words(remote)
}

// words returns an address and a port as the kernel has them: in network byte order, IPv4 in the
// last word.
func words(a netip.AddrPort) (addr [4]uint32, port uint16) {
	if a.Addr().Unmap().Is4() {
		b := a.Addr().Unmap().As4()
		addr[3] = binary.NativeEndian.Uint32(b[:])
	} else {
		b := a.Addr().As16()
		for i := range addr {
			addr[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
	}
	return addr, binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, a.Port()))
}

// endpoint is the opposite of words.
func endpoint(addr [4]uint32, port uint16, flags uint8) netip.AddrPort {
	number := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
	if flags&halfV6 == 0 {
		b := binary.NativeEndian.AppendUint32(nil, addr[3])
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), number)
	}
	var b []byte
	for _, word := range addr {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)), number)
}

// addrs returns what setAddrs has set.
func (h *spliceHalf) addrs() (local, remote netip.AddrPort) {
	return endpoint(h.Src, h.Sport, h.Flags), endpoint(h.Dst, h.Dport, h.Flags)
}

// raise sets a number that only grows, if value is after it in sequence space. The programs raise
// the same numbers in the same way.
func raise(at *uint32, value uint32) {
	for {
		was := atomic.LoadUint32(at)
		if int32(value-was) <= 0 || atomic.CompareAndSwapUint32(at, was, value) {
			return
		}
	}
}

// catchUp notes what our socket on the leg of a direction knows. A packet may have passed the place
// of the programs before the flow was put, and reached the socket after its numbers were read.
// Nobody would know of it otherwise, and the pair would wait for an acknowledgement that has come.
func (p *splicePair) catchUp(d direction, v *peekView) {
	h := &p.Halves[d]
	if int32(v.SndUna-h.maxAck()) > 0 {
		h.Window = uint16(min(v.SndWnd>>v.SndScale, 1<<16-1))
	}
	raise(&h.MaxAck, v.SndUna)
	raise(&h.MaxEdge, v.SndUna+v.SndWnd)
	raise(&h.MaxEnd, v.RcvNxt)
	p.letSend(d, v.RcvEdge)
}

// letSend notes how far our socket on the leg of a direction has let its peer send: up to edge, a
// sequence number of that leg. The programs believe no data beyond, so Go calls letSend when it has
// put the flows, with what the socket has announced until then.
func (p *splicePair) letSend(d direction, edge uint32) {
	raise(&p.Halves[1-d].MaxEdge, edge+p.Halves[d].SeqAdd)
}

// Unit of spliceHalf.Last.
const lastUnit = 1 << 20 * time.Nanosecond

// started is a moment by the clock of package time, and by the monotonic clock.
var started = sync.OnceValue(func() (s struct {
	at        time.Time
	monotonic int64
}) {
	var t unix.Timespec
	s.at = time.Now() // first, so that no packet seems to be of the future
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("splice: no monotonic clock: " + err.Error()) // Linux always has one
	}
	s.monotonic = t.Nano()
	return s
})

// lastAge returns how long ago a packet of the half came. It is right for ages of up to 52 days. It
// makes no system call.
func (h *spliceHalf) lastAge() time.Duration {
	s := started()
	now := s.monotonic + int64(time.Since(s.at))
	return time.Duration(uint32(now>>20)-atomic.LoadUint32(&h.Last)) * lastUnit
}
