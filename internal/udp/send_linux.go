package udp

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is the memory of sendmmsg, for one write at a time.
type sender struct {
	engine *kernelEngine
	hdrs   [maxBatch]mmsghdr
	iovs   [maxBatch]unix.Iovec
	names  [maxBatch]sockaddr
	oobs   [maxBatch]control
	parts  [maxBatch]Message // what is in each
	n      int               // how many are filled
	call   func(fd uintptr) bool
	from   int // the first to send
	sent   int
	errno  unix.Errno
}

func newSender(e *kernelEngine) *sender {
	s := &sender{engine: e}
	for i := range s.hdrs {
		h := &s.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Iov = &s.iovs[i]
		h.SetIovlen(1)
	}
	s.call = s.sendmmsg // made once, so that a write does not allocate
	return s
}

// sendmmsg is the system call, in the form that syscall.RawConn wants.
func (s *sender) sendmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.hdrs[s.from])), uintptr(s.n-s.from), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		s.sent, s.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

func (e *kernelEngine) write(ms []Message) error {
	s := e.tx.Get().(*sender)
	defer e.tx.Put(s)
	var last error
	for i := range ms {
		for part := range ms[i].trains() {
			if part.SegmentSize > 0 && !e.socket.gso.Load() {
				last = keep(last, s.split(&part))
				continue
			}
			last = keep(last, s.add(&part))
		}
	}
	return keep(last, s.flush())
}

// keep returns the newer error, if there is one.
func keep(last, err error) error {
	if err != nil {
		return err
	}
	return last
}

// add queues a message that the kernel takes at once.
func (s *sender) add(m *Message) error {
	i := s.n
	s.parts[i] = *m
	s.iovs[i].Base = unsafe.SliceData(m.Data)
	s.iovs[i].SetLen(len(m.Data))
	h := &s.hdrs[i].hdr
	h.Namelen = s.engine.putAddr(&s.names[i], m.Remote)
	n := putControl(s.oobs[i].b[:0], m)
	h.Control = nil
	if n > 0 {
		h.Control = &s.oobs[i].b[0]
	}
	h.SetControllen(n)
	s.n++
	if s.n == maxBatch {
		return s.flush()
	}
	return nil
}

// split queues the datagrams of a train one by one.
func (s *sender) split(train *Message) error {
	var last error
	one := *train
	one.SegmentSize = 0
	for data := range train.Segments() {
		one.Data = data
		last = keep(last, s.add(&one))
	}
	return last
}

// flush sends what is queued. What the kernel refuses is passed over.
func (s *sender) flush() error {
	var last error
	defer s.reset()
	for s.from = 0; s.from < s.n; {
		if err := s.engine.raw.Write(s.call); err != nil {
			return err
		}
		if s.errno == 0 {
			for i := range s.sent {
				s.engine.socket.sent(&s.parts[s.from+i])
			}
			s.from += s.sent
			continue
		}
		last = keep(last, s.refused(&s.parts[s.from], s.errno))
		s.from++
	}
	return last
}

// reset forgets the messages, whose memory is the caller's.
func (s *sender) reset() {
	clear(s.parts[:s.n])
	clear(s.iovs[:s.n])
	s.n = 0
}

// refused handles a message that the kernel would not take. If that is for its
// being a train, it goes out packet by packet, and so do all that follow if
// the network device is to blame (EIO, see udp(7)).
func (s *sender) refused(m *Message, errno unix.Errno) error {
	stats := &s.engine.socket.stats
	if m.SegmentSize > 0 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE) {
		stats.gsoFallbacks.Add(1)
		if errno == unix.EIO {
			s.engine.socket.SetGSO(false)
		}
		return s.engine.writeSplit(m)
	}
	stats.txErrors.Add(uint64(m.Count()))
	return os.NewSyscallError("sendmmsg", errno)
}

// writeSplit sends the datagrams of a train one by one, with memory of its own,
// because that of the caller is in use.
func (e *kernelEngine) writeSplit(train *Message) error {
	s := e.tx.Get().(*sender)
	defer e.tx.Put(s)
	return keep(s.split(train), s.flush())
}
