package udp

import (
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// firstBatch is how many messages a new receiver has room for. The receiver grows when
	// that many have come at once.
	firstBatch = 2
	// receiverLife is how long a receiver that has grown is kept while a quarter of its
	// room is enough.
	receiverLife = 10 * time.Second
)

// receiver is the memory for recvmmsg. A socket that waits for packets has none.
type receiver struct {
	hdrs   []mmsghdr
	iovs   []unix.Iovec
	names  []sockaddr
	oobs   []control
	bufs   [][]byte
	size   int       // of each buffer
	got    int       // how many messages came with the last call
	most   int       // how many have come with one call since a socket got the receiver
	needed time.Time // when more than a quarter of the room was needed
}

// Receivers that no socket uses at the moment, for single packets and for trains. The
// garbage collector takes those that are not needed for some time.
var singleReceivers, trainReceivers sync.Pool

// receiverPool returns the pool of the receivers that the socket can use.
func (e *kernelEngine) receiverPool() *sync.Pool {
	if e.socket.gro {
		return &trainReceivers
	}
	return &singleReceivers
}

// takeReceiver returns a receiver for the socket.
func (e *kernelEngine) takeReceiver() *receiver {
	if r, ok := e.receiverPool().Get().(*receiver); ok {
		return r
	}
	return newReceiver(e.socket.gro, firstBatch)
}

// newReceiver makes a receiver with room for n messages, which may be trains.
func newReceiver(trains bool, n int) *receiver {
	r := &receiver{size: packetSize}
	if trains {
		r.size = trainSize
	}
	r.grow(n)
	return r
}

// grow makes room for n messages. The buffers that there are stay in use.
func (r *receiver) grow(n int) {
	r.hdrs = make([]mmsghdr, n)
	r.iovs = make([]unix.Iovec, n)
	r.names = make([]sockaddr, n)
	r.oobs = make([]control, n)
	more := make([]byte, (n-len(r.bufs))*r.size)
	for at := 0; at < len(more); at += r.size {
		r.bufs = append(r.bufs, more[at:at+r.size])
	}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(r.size)
		h := &r.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.oobs[i].b[0]
	}
}

// arm prepares to receive at most want messages, and returns the hdrs for them. It sets the
// fields again that the last system call has overwritten.
func (r *receiver) arm(want int) []mmsghdr {
	if r.got == len(r.hdrs) && want > len(r.hdrs) {
		r.grow(min(2*len(r.hdrs), want))
	}
	hdrs := r.hdrs[:min(want, len(r.hdrs))]
	for i := range hdrs {
		h := &hdrs[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		h.SetControllen(len(r.oobs[i].b))
	}
	return hdrs
}

// received takes note of n messages that have come with one call.
func (r *receiver) received(n int) {
	r.got, r.most = n, max(r.most, n)
}

// rest prepares the receiver for another socket. It returns false if the receiver is not worth
// keeping, because it has more room than has been needed for some time.
func (r *receiver) rest() bool {
	if len(r.hdrs) > firstBatch {
		now := time.Now()
		if r.most > len(r.hdrs)/4 {
			r.needed = now
		} else if now.Sub(r.needed) > receiverLife {
			return false
		}
	}
	r.got, r.most = 0, 0
	return true
}

// recvmmsg makes the system call. It is the callback of syscall.RawConn, which waits if it
// returns false. The socket has no receiver while it waits: there may be many sockets to
// which few packets come.
func (e *kernelEngine) recvmmsg(fd uintptr) bool {
	if e.drained { // wait at once
		e.drained = false
		e.giveBack()
		return false
	}
	if e.rx == nil {
		e.rx = e.takeReceiver()
	}
	hdrs := e.rx.arm(e.want)
	for {
		n, errno := e.receive(fd, hdrs)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			e.giveBack()
			return false
		case 0:
			e.rx.received(n)
			e.drained = e.level && n < len(hdrs)
		}
		e.got, e.errno = n, errno
		return true
	}
}

// giveBack gives the receiver back. The messages that were read before must not keep its
// buffers from the garbage collector.
func (e *kernelEngine) giveBack() {
	clear(e.ms[:min(e.rx.most, len(e.ms))])
	if e.rx.rest() {
		e.receiverPool().Put(e.rx)
	}
	e.rx = nil
}

func (e *kernelEngine) read(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	e.ms, e.want = ms, min(len(ms), maxBatch)
	for failed := 0; ; failed++ {
		if err := e.raw.Read(e.recv); err != nil {
			return 0, err
		}
		if e.errno == 0 {
			for i := range e.got {
				e.message(i, &ms[i])
			}
			return e.got, nil
		}
		if failed == maxReadErrors {
			return 0, os.NewSyscallError("recvmmsg", e.errno)
		}
		e.socket.stats.rxErrors.Add(1)
	}
}

// message makes a Message of what the kernel has written about message i.
func (e *kernelEngine) message(i int, m *Message) {
	r := e.rx
	h := &r.hdrs[i]
	*m = Message{Data: r.bufs[i][:h.n:h.n], Remote: getAddr(&r.names[i])}
	dropped, ok := parseControl(r.oobs[i].b[:h.hdr.Controllen], m)
	if ok {
		e.socket.stats.rxOverflow.Add(uint64(dropped - e.dropped)) // both counters wrap around
		e.dropped = dropped
	}
	if m.SegmentSize >= len(m.Data) {
		m.SegmentSize = 0
	}
}
