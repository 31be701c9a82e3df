package udp

import (
	"os"

	"golang.org/x/sys/unix"
)

// groupReader is the loop of an epollGroup.
type groupReader struct {
	group   *epollGroup
	rx      *receiver
	events  [groupBatch]unix.EpollEvent
	ready   int // events to handle
	err     error
	members [groupBatch]*epollMember
	batch   []Received
}

func (g *epollGroup) run(handle func([]Received)) error {
	r := &groupReader{group: g, rx: newReceiver(true, groupBatch), batch: make([]Received, 0, 2*groupBatch)}
	poll := r.poll // made once, so that a read does not allocate
	for {
		if err := g.raw.Read(poll); err != nil {
			return g.ended(err)
		}
		if r.err != nil {
			return os.NewSyscallError("epoll_wait", r.err)
		}
		r.find()
		r.read()
		if len(r.batch) > 0 {
			handle(r.batch)
			clear(r.batch)
			r.batch = r.batch[:0]
		}
	}
}

// poll asks which members are readable. It is the callback of syscall.RawConn, which waits
// if it returns false.
func (r *groupReader) poll(fd uintptr) bool {
	for {
		n, err := unix.EpollWait(int(fd), r.events[:], 0)
		if err == unix.EINTR {
			continue
		}
		r.ready, r.err = n, err
		return n != 0
	}
}

// find finds the members that the events are about, and keeps their sockets open.
func (r *groupReader) find() {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	n := 0
	for i := range r.events[:r.ready] {
		if m := r.group.atLocked(&r.events[i]); m != nil && m.use() {
			r.members[n] = m
			n++
		}
	}
	r.ready = n
}

// read reads from the members that are ready while there are buffers. The kernel reports
// the others again.
func (r *groupReader) read() {
	at := 0
	for i, m := range r.members[:r.ready] {
		if n := min(memberBatch, groupBatch-at); n > 0 {
			at += r.readOne(m, at, n)
		}
		m.done()
		r.members[i] = nil
	}
}

// readOne reads at most n messages of a member into the buffers from at on, and returns how
// many it has read.
func (r *groupReader) readOne(m *epollMember, at, n int) int {
	hdrs := r.rx.hdrs[at : at+n]
	for i := range hdrs {
		hdrs[i].hdr.Namelen = 0
		hdrs[i].hdr.Name = nil
		hdrs[i].hdr.SetControllen(len(r.rx.oobs[at+i].b))
	}
	got, errno := r.group.kernel.receive(uintptr(m.fd), hdrs)
	stats := r.group.counters()
	if errno != 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR {
			stats.rxErrors.Add(1)
			r.batch = append(r.batch, Received{Member: m.Member, Owner: m.owner, Err: os.NewSyscallError("recvmmsg", errno)})
		}
		return 0
	}
	packets, bytes := 0, 0
	for i := range got {
		r.batch = append(r.batch, Received{Member: m.Member, Owner: m.owner, Message: r.message(m, at+i)})
		read := &r.batch[len(r.batch)-1].Message
		packets += read.Count()
		bytes += len(read.Data)
	}
	stats.rxBatches.Add(1)
	stats.rxPackets.Add(uint64(packets))
	stats.rxBytes.Add(uint64(bytes))
	return got
}

// message makes a Message of what the kernel has written about message i.
func (r *groupReader) message(m *epollMember, i int) Message {
	h := &r.rx.hdrs[i]
	out := Message{Data: r.rx.bufs[i][:h.n:h.n], Remote: m.remote, Local: m.local.Addr()}
	parseControl(r.rx.oobs[i].b[:h.hdr.Controllen], &out)
	if out.SegmentSize >= len(out.Data) {
		out.SegmentSize = 0
	}
	return out
}
