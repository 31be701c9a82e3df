package udp

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver is the memory for recvmmsg. A socket has one, because one goroutine reads.
type receiver struct {
	engine  *kernelEngine
	hdrs    []mmsghdr
	iovs    []unix.Iovec
	names   []sockaddr
	oobs    []control
	bufs    []byte
	size    int // of each buffer
	call    func(fd uintptr) bool
	want    int
	got     int
	errno   unix.Errno
	dropped uint32 // the last value of SO_RXQ_OVFL
}

func newReceiver(e *kernelEngine, n int) *receiver {
	n = min(n, maxBatch)
	size := packetSize
	if e.socket.gro {
		size = trainSize
	}
	r := &receiver{
		engine: e,
		hdrs:   make([]mmsghdr, n),
		iovs:   make([]unix.Iovec, n),
		names:  make([]sockaddr, n),
		oobs:   make([]control, n),
		bufs:   make([]byte, n*size),
		size:   size,
	}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i*size]
		r.iovs[i].SetLen(size)
		h := &r.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.oobs[i].b[0]
	}
	r.call = r.recvmmsg // made once, so that a read does not allocate
	return r
}

// recvmmsg makes the system call. It is the callback of syscall.RawConn.
func (r *receiver) recvmmsg(fd uintptr) bool {
	for {
		n, errno := r.engine.receive(fd, r.hdrs[:r.want])
		if errno == unix.EINTR {
			continue
		}
		r.got, r.errno = n, errno
		return errno != unix.EAGAIN
	}
}

func (e *kernelEngine) read(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	if e.rx == nil || len(e.rx.hdrs) < min(len(ms), maxBatch) {
		e.rx = newReceiver(e, len(ms))
	}
	r := e.rx
	for failed := 0; ; failed++ {
		r.arm(min(len(ms), len(r.hdrs)))
		if err := e.raw.Read(r.call); err != nil {
			return 0, err
		}
		if r.errno == 0 {
			for i := range r.got {
				r.message(i, &ms[i])
			}
			return r.got, nil
		}
		if failed == maxReadErrors {
			return 0, os.NewSyscallError("recvmmsg", r.errno)
		}
		e.socket.stats.rxErrors.Add(1)
	}
}

// arm sets the fields again that the last system call has overwritten.
func (r *receiver) arm(n int) {
	r.want = n
	for i := range n {
		h := &r.hdrs[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		h.SetControllen(len(r.oobs[i].b))
	}
}

// message makes a Message of what the kernel has written about message i.
func (r *receiver) message(i int, m *Message) {
	h := &r.hdrs[i]
	at := i * r.size
	*m = Message{Data: r.bufs[at : at+int(h.n) : at+int(h.n)], Remote: getAddr(&r.names[i])}
	dropped, ok := parseControl(r.oobs[i].b[:h.hdr.Controllen], m)
	if ok {
		r.engine.socket.stats.rxOverflow.Add(uint64(dropped - r.dropped)) // both counters wrap around
		r.dropped = dropped
	}
	if m.SegmentSize >= len(m.Data) {
		m.SegmentSize = 0
	}
}
