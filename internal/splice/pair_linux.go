package splice

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"unsafe"
)

// Pair is two connections that the kernel relays. Its owner, the caller of [Program.Take], waits for
// Done. If End is then CameBack, the owner calls Return for the sockets. All methods may be called concurrently.
type Pair struct {
	keeper  *keeper
	ends    [2]tuple // of the client's connection, and of the upstream's
	wants   chan Reason
	streams [2]streamCount
	done    chan struct{}

	// Set before done is closed.
	end   End
	final [2]Half
	back  [2]*net.TCPConn // for CameBack

	// Used by the keeper's goroutine only, except for entry, whose numbers are atomic.
	entry    *splicePair
	slot     uint32
	conns    [2]*net.TCPConn // frozen sockets that hold the addresses; nil: there is none
	notes    [2]note
	taken    bool     // the takeover is complete
	leaving  bool     // the takeover is not wanted any more
	over     bool     // the pair has ended
	asked    uint32   // what the owner was asked for: bits of spliceHalf.Seen
	way      *wayBack // nil: no way back is in progress
	oversize [2]oversize
}

// noteSize is the size of a note in memory.
const noteSize = int(unsafe.Sizeof(note{}))

func newPair(k *keeper, ends [2]tuple) *Pair {
	return &Pair{keeper: k, ends: ends, wants: make(chan Reason, len(wishes)+1), done: make(chan struct{})}
}

// note is what has to be known of a connection to make a socket that continues it, and is not in
// the entry of its pair. The next process reads it as it is in memory.
type note struct {
	Settings         settings
	MSS              uint16 // largest segment that the peer takes, without options
	Advmss           uint16 // what the peer was told, without options
	Timestamps, SACK uint8
	_                [2]uint8
}

// negotiated sets what the ends have agreed on when they connected.
func (n *note) negotiated(v *peekView) {
	n.MSS, n.Advmss = uint16(min(v.MssClamp, 1<<16-1)), uint16(min(v.Advmss, 1<<16-1))
	n.Timestamps, n.SACK = v.Timestamps, v.Sack
}

// Client returns the addresses of the client's connection: those of the client and of this host.
func (p *Pair) Client() (remote, local netip.AddrPort) {
	return p.ends[fromClient].remote, p.ends[fromClient].local
}

// Upstream returns the addresses of the upstream's connection: those of the upstream and of this
// host.
func (p *Pair) Upstream() (remote, local netip.AddrPort) {
	return p.ends[fromUpstream].remote, p.ends[fromUpstream].local
}

// Done returns a channel that is closed when the kernel no longer relays the pair.
func (p *Pair) Done() <-chan struct{} { return p.done }

// End says how the pair has ended. It is [Running] until Done is closed.
func (p *Pair) End() End {
	select {
	case <-p.done:
		return p.end
	default:
		return Running
	}
}

// Traffic returns what the kernel has seen of the packets from the client and from the upstream. It
// makes no system call. After the end it returns the last numbers.
func (p *Pair) Traffic() (client, upstream Half) {
	halves := [2]Half{p.entry.Halves[fromClient].traffic(), p.entry.Halves[fromUpstream].traffic()}
	ends := [2]uint32{p.entry.Halves[fromClient].streamEnd(), p.entry.Halves[fromUpstream].streamEnd()}
	select {
	case <-p.done: // the entry may be another pair's by now
		return p.final[fromClient], p.final[fromUpstream]
	default:
	}
	for i := range halves {
		halves[i].Stream = p.streams[i].upTo(ends[i], halves[i].Bytes-halves[i].Retransmitted)
	}
	return halves[fromClient], halves[fromUpstream]
}

// Wants returns a channel from which the caller learns that the pair should go back to userspace,
// and why. The caller decides between [Pair.Return] and [Pair.Abort].
func (p *Pair) Wants() <-chan Reason { return p.wants }

// ask tells the owner that the pair should go back to userspace.
func (p *Pair) ask(why Reason) {
	select {
	case p.wants <- why:
	default: // the owner has not read what it was told before
	}
}

// Abort resets both connections: each end is sent a reset. It returns nil if the pair has ended,
// and ErrClosed if the program was closed.
func (p *Pair) Abort() error {
	if p.keeper.do(func() { p.keeper.abort(p, Reset) }) || p.End() != Running {
		return nil
	}
	return ErrClosed
}

// eachSocket calls f with the descriptor of each socket.
func (p *Pair) eachSocket(f func(fd int) error) error {
	for _, c := range p.conns {
		if c == nil {
			continue
		}
		if err := control(c, f); err != nil {
			return err
		}
	}
	return nil
}

// restoreProbes undoes silence.
func (p *Pair) restoreProbes() error {
	var errs []error
	for i, c := range p.conns {
		errs = append(errs, control(c, func(fd int) error { return setProbes(fd, p.notes[i].Settings.Probes) }))
	}
	return errors.Join(errs...)
}

// drop closes the sockets without a word to the ends. The goroutines of the owner see it, and may close
// the sockets too: so both give up their addresses before one of these goroutines can run.
func (p *Pair) drop() {
	holdOpen(p.conns[:], nil, func(fds []int) {
		for _, fd := range fds {
			_ = freeze(fd) // is frozen already, unless the takeover has failed
		}
		for _, fd := range fds {
			_ = discard(fd) // the worst is that the addresses stay in use
		}
	})
	for i, c := range p.conns {
		if c != nil {
			_ = c.Close() // an error says that the owner has closed it
			p.conns[i] = nil
		}
	}
}

// holdOpen calls f with the descriptors of the connections that are open, and keeps them open meanwhile.
func holdOpen(conns []*net.TCPConn, fds []int, f func(fds []int)) {
	if len(conns) == 0 {
		f(fds)
		return
	}
	if c := conns[0]; c != nil {
		err := control(c, func(fd int) error {
			holdOpen(conns[1:], append(fds, fd), f)
			return nil
		})
		if err == nil {
			return
		}
	}
	holdOpen(conns[1:], fds, f)
}

// leg returns the state of one connection of the pair. The next byte to its end is the first one
// that the end has not acknowledged.
func (p *Pair) leg(i direction) *leg {
	h, other, n := &p.entry.Halves[i], &p.entry.Halves[1-i], &p.notes[i]
	// The end has got the windows of the other one.
	own := int32(atomic.LoadUint32(&other.MaxEdge) + other.SeqAdd - h.maxEnd())
	return &leg{
		ownWindow: uint32(max(own, 0)),
		tuple:     p.ends[i], settings: n.Settings, sndNxt: h.maxAck(), rcvNxt: h.maxEnd(),
		window: uint32(h.Window) << h.InScale, sndScale: h.InScale, rcvScale: h.OwnScale,
		mss: n.MSS, timestamps: n.Timestamps != 0, sack: n.SACK != 0,
		timestamp: p.seenClock(i),
	}
}

// seenClock returns the last timestamp that was forwarded to an end. Those of our socket must not be
// before it.
func (p *Pair) seenClock(i direction) uint32 {
	other := &p.entry.Halves[1-i]
	return atomic.LoadUint32(&other.LastTs) + other.TsAdd
}
