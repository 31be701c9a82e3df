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
	iovs   [maxBatch][maxGather]unix.Iovec
	names  [maxBatch]sockaddr
	oobs   [maxBatch]control
	trains [maxBatch]train // what is in each
	n      int             // how many are filled
	recent recent
	single bool // leave messages as they are
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
		h.Iov = &s.iovs[i][0]
	}
	s.call = s.sendmmsg // made once, so that a write does not allocate
	return s
}

// sendmmsg is the system call, in the form that syscall.RawConn wants.
func (s *sender) sendmmsg(fd uintptr) bool {
	for {
		n, errno := s.engine.send(fd, s.hdrs[s.from:s.n])
		if errno == unix.EINTR {
			continue
		}
		s.sent, s.errno = n, errno
		return errno != unix.EAGAIN
	}
}

func (e *kernelEngine) write(ms []Message) error {
	s := e.tx.Get().(*sender)
	defer e.tx.Put(s)
	s.single = !e.socket.gso.Load()
	var last error
	for i := range ms {
		for part := range ms[i].trains() {
			if s.single {
				last = keep(last, s.split(&part))
			} else {
				last = keep(last, s.add(&part))
			}
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

// add queues a message that the kernel takes at once: at the end of the latest
// train to its address if it can, so that the packets of flows that came in
// turns leave in trains, and each flow's in their order.
func (s *sender) add(m *Message) error {
	slot := s.recent.of(m.Remote)
	if i := int(*slot); i < s.n && !s.single && s.trains[i].takes(m) {
		s.trains[i].append(m, &s.iovs[i])
		return nil
	}
	var last error
	if s.n == maxBatch {
		last = s.flush()
	}
	*slot = uint8(s.n)
	t := &s.trains[s.n]
	*t = train{Message: *m, size: sizeOf(m)}
	t.append(m, &s.iovs[s.n])
	s.n++
	return last
}

// seal tells the kernel about a train that is complete.
func (s *sender) seal(i int) {
	t := &s.trains[i]
	t.SegmentSize = 0
	if t.length > t.size {
		t.SegmentSize = t.size
	}
	h := &s.hdrs[i].hdr
	h.SetIovlen(t.pieces)
	h.Namelen = s.engine.putAddr(&s.names[i], t.Remote)
	n := putControl(s.oobs[i].b[:0], &t.Message)
	h.Control = nil
	if n > 0 {
		h.Control = &s.oobs[i].b[0]
	}
	h.SetControllen(n)
}

// flush sends what is queued. What the kernel refuses is passed over.
func (s *sender) flush() error {
	var last error
	defer s.reset()
	for i := range s.n {
		s.seal(i)
	}
	for s.from = 0; s.from < s.n; {
		if err := s.engine.raw.Write(s.call); err != nil {
			return err
		}
		if s.errno == 0 {
			for i := range s.sent {
				t := &s.trains[s.from+i]
				s.engine.socket.sent(t.datagrams(), t.length)
			}
			s.from += s.sent
			continue
		}
		last = keep(last, s.refused(s.from, s.errno))
		s.from++
	}
	return last
}

// reset forgets the messages, whose memory is the caller's.
func (s *sender) reset() {
	for i := range s.n {
		clear(s.iovs[i][:s.trains[i].pieces])
		s.trains[i] = train{}
	}
	s.n = 0
}

// refused handles a train that the kernel would not take. If that is for its
// being one, it goes out packet by packet, and so do all that follow if the
// network device is to blame (EIO, see udp(7)).
func (s *sender) refused(i int, errno unix.Errno) error {
	t := &s.trains[i]
	stats := &s.engine.socket.stats
	if t.SegmentSize > 0 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE) {
		stats.gsoFallbacks.Add(1)
		if errno == unix.EIO {
			s.engine.socket.SetGSO(false)
		}
		return s.engine.writeSplit(t.Message, s.iovs[i][:t.pieces])
	}
	stats.txErrors.Add(uint64(t.datagrams()))
	return os.NewSyscallError("sendmmsg", errno)
}

// writeSplit sends the datagrams of a train one by one, with memory of its own,
// because that of the caller is in use.
func (e *kernelEngine) writeSplit(train Message, pieces []unix.Iovec) error {
	s := e.tx.Get().(*sender)
	defer e.tx.Put(s)
	s.single = true
	var last error
	for _, piece := range pieces {
		train.Data = unsafe.Slice(piece.Base, piece.Len)
		last = keep(last, s.split(&train))
	}
	return keep(last, s.flush())
}
