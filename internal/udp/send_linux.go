package udp

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is the memory for sendmmsg. Each write uses a sender of its own, for as long as the socket
// has no room.
type sender struct {
	engine *kernelEngine // of the present write
	hdrs   []mmsghdr
	iovs   [][maxGather]unix.Iovec
	names  []sockaddr
	oobs   []control
	trains []train // the train of each hdr
	n      int     // how many hdrs are in use
	recent recent
	single bool // do not make trains
	raw    syscall.RawConn
	to     bool // messages need their address: the socket is not connected
	call   func(fd uintptr) bool
	from   int // index of the first hdr to send
	sent   int
	errno  unix.Errno
}

// senders are those that no write uses at the moment. Those of smallSenders have room for
// fewMessages in 12 KiB, and the others for maxBatch: thousands of connections of quic-go may wait
// for a socket at the same time, each with one message.
var (
	senders      = sync.Pool{New: func() any { return newSender(maxBatch) }}
	smallSenders = sync.Pool{New: func() any { return newSender(fewMessages) }}
)

const fewMessages = 16

// newSender returns a sender with room for so many trains.
func newSender(n int) *sender {
	s := &sender{
		hdrs:   make([]mmsghdr, n),
		iovs:   make([][maxGather]unix.Iovec, n),
		names:  make([]sockaddr, n),
		oobs:   make([]control, n),
		trains: make([]train, n),
	}
	for i := range s.hdrs {
		h := &s.hdrs[i].hdr
		h.Iov = &s.iovs[i][0]
	}
	s.call = s.sendmmsg // made once, so that a write does not allocate
	return s
}

// sendmmsg makes the system call. It is the callback of syscall.RawConn.
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

func (e *kernelEngine) write(ms []Message) error { return e.writeTo(e.raw, true, ms) }

// writeTo sends messages on a socket. to says that it is not connected.
func (e *kernelEngine) writeTo(raw syscall.RawConn, to bool, ms []Message) error {
	s := takeSender(e, raw, to, len(ms))
	defer s.release()
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

// takeSender returns a sender for one write of so many messages on a socket.
func takeSender(e *kernelEngine, raw syscall.RawConn, to bool, messages int) *sender {
	pool := &senders
	if messages <= fewMessages {
		pool = &smallSenders
	}
	s := pool.Get().(*sender)
	s.engine, s.raw, s.to = e, raw, to
	return s
}

// release makes the sender available for other writes, on any socket.
func (s *sender) release() {
	s.engine, s.raw = nil, nil
	if len(s.hdrs) == fewMessages {
		smallSenders.Put(s)
		return
	}
	senders.Put(s)
}

// keep returns err, or last if err is nil.
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

// add queues a message within the kernel's limits. It appends the message to the latest train
// to the same address if possible. So interleaved packets of several flows are sent as trains,
// and the packets of each flow stay in order.
func (s *sender) add(m *Message) error {
	slot := s.recent.of(m.Remote)
	if i := int(*slot); i < s.n && !s.single && s.trains[i].takes(m) {
		s.trains[i].append(m, &s.iovs[i])
		return nil
	}
	var last error
	if s.n == len(s.hdrs) {
		last = s.flush()
	}
	*slot = uint8(s.n)
	t := &s.trains[s.n]
	*t = train{Message: *m, size: sizeOf(m)}
	t.append(m, &s.iovs[s.n])
	s.n++
	return last
}

// seal fills the hdr of a train that is complete.
func (s *sender) seal(i int) {
	t := &s.trains[i]
	t.SegmentSize = 0
	if t.length > t.size {
		t.SegmentSize = t.size
	}
	h := &s.hdrs[i].hdr
	h.SetIovlen(t.pieces)
	h.Name, h.Namelen = nil, 0
	if s.to {
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Namelen = s.engine.putAddr(&s.names[i], t.Remote)
	}
	n := putControl(s.oobs[i].b[:0], &t.Message)
	h.Control = nil
	if n > 0 {
		h.Control = &s.oobs[i].b[0]
	}
	h.SetControllen(n)
}

// flush sends the queued trains. It skips those that the kernel refuses, and returns the last
// error.
func (s *sender) flush() error {
	var last error
	defer s.reset()
	for i := range s.n {
		s.seal(i)
	}
	for s.from = 0; s.from < s.n; {
		if err := s.raw.Write(s.call); err != nil {
			s.lost(err)
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

// lost counts the trains that are not sent, unless the socket is closed.
func (s *sender) lost(err error) {
	if errors.Is(err, net.ErrClosed) {
		return
	}
	for i := s.from; i < s.n; i++ {
		s.engine.socket.stats.txErrors.Add(uint64(s.trains[i].datagrams()))
	}
}

// reset drops the references to the messages, whose memory belongs to the caller.
func (s *sender) reset() {
	for i := range s.n {
		clear(s.iovs[i][:s.trains[i].pieces])
		s.trains[i] = train{}
	}
	s.n = 0
}

// refused handles a message that the kernel has refused. If the reason may be that it is a
// train, refused sends its datagrams one by one. If the network device does not support trains
// (EIO, see udp(7)), the socket sends no more trains.
func (s *sender) refused(i int, errno unix.Errno) error {
	t := &s.trains[i]
	stats := &s.engine.socket.stats
	if t.SegmentSize > 0 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE) {
		stats.gsoFallbacks.Add(1)
		if errno == unix.EIO {
			s.engine.socket.SetGSO(false)
		}
		return s.writeSplit(t.Message, s.iovs[i][:t.pieces])
	}
	stats.txErrors.Add(uint64(t.datagrams()))
	return os.NewSyscallError("sendmmsg", errno)
}

// writeSplit sends the datagrams of a train one by one. It uses another sender, because the
// caller's is in use.
func (s *sender) writeSplit(train Message, pieces []unix.Iovec) error {
	other := takeSender(s.engine, s.raw, s.to, len(pieces))
	defer other.release()
	other.single = true
	var last error
	for _, piece := range pieces {
		train.Data = unsafe.Slice(piece.Base, piece.Len)
		last = keep(last, other.split(&train))
	}
	return keep(last, other.flush())
}
