package ports

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/quicway/quicway/internal/monotime"
)

const (
	// maxDatagram is the longest UDP payload.
	maxDatagram = 65507
	// maxRecords and maxQueued are how many datagrams of a flow, and how many bytes, may wait for
	// its stream: the longest one that is being written, and another. Further ones are dropped.
	maxRecords = 16
	maxQueued  = 2 * (2 + maxDatagram)
	// maxFlows is how many flows of a session its side may begin. The other streams are for TCP.
	maxFlows = maxStreams / 2
)

// flow is the datagrams between one pair of sockets. A datagram travels in a QUIC datagram. It
// travels on the flow's stream, after its length, before the peer knows the flow, and if it is
// too long.
type flow struct {
	session *Session
	stream  *quic.Stream
	deliver func([]byte) // to the socket of this side
	known   atomic.Bool  // by the peer
	used    atomic.Int64 // time of the last datagram, of package monotime
	records chan []byte  // that wait for the stream
	queued  atomic.Int64 // bytes of the records, and of the one that is being written
	ctx     context.Context
	end     context.CancelFunc
}

// newFlow makes a flow, which counts from now on.
func (s *Session) newFlow(ctx context.Context, stream *quic.Stream, deliver func([]byte)) *flow {
	f := &flow{session: s, stream: stream, deliver: deliver, records: make(chan []byte, maxRecords)}
	f.used.Store(monotime.Now())
	f.ctx, f.end = context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows[stream.StreamID()] = f
	return f
}

// run carries a flow until it has been idle for too long, or one side has ended it. An error is
// why the peer cannot carry it.
func (f *flow) run(answer bool) (err error) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer f.close()
	defer context.AfterFunc(f.ctx, func() { f.stream.CancelRead(aborted) })()
	defer f.stream.CancelRead(aborted) // what follows an error is not read
	tasks.Go(f.write)
	tasks.Go(f.expire)
	if answer {
		if _, err = awaitAnswer(f.stream); err != nil && f.ctx.Err() != nil {
			return nil // it was ended from here
		} else if err != nil {
			return err
		}
	}
	f.known.Store(true)
	f.read()
	return nil
}

func (f *flow) close() {
	f.end()
	f.session.mu.Lock()
	defer f.session.mu.Unlock()
	delete(f.session.flows, f.stream.StreamID())
}

// expire ends the flow when it has been idle for too long.
func (f *flow) expire() {
	idle := f.session.conf.UDPIdle
	for wait := idle; wait > 0; wait = idle - f.idle(time.Now()) {
		select {
		case <-time.After(wait):
		case <-f.ctx.Done():
			return
		}
	}
	f.end()
}

// idle is how long there has been no datagram.
func (f *flow) idle(now time.Time) time.Duration { return monotime.Age(f.used.Load(), now) }

// read delivers what comes on the stream.
func (f *flow) read() {
	b := make([]byte, 2)
	for {
		if _, err := io.ReadFull(f.stream, b[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(b))
		if n > maxDatagram {
			return
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(f.stream, payload); err != nil {
			return
		}
		f.receive(payload)
	}
}

// write writes what waits for the stream. After an error nothing is written: the other direction
// of the stream says why, and ends the flow.
func (f *flow) write() {
	defer f.stream.CancelWrite(aborted)
	defer context.AfterFunc(f.ctx, func() { _ = f.stream.SetWriteDeadline(time.Now()) })()
	for {
		select {
		case b := <-f.records:
			if _, err := f.stream.Write(b); err != nil {
				return
			}
			f.queued.Add(-int64(len(b)))
		case <-f.ctx.Done():
			return
		}
	}
}

// receive delivers a datagram of the peer.
func (f *flow) receive(b []byte) {
	f.used.Store(monotime.Now())
	f.deliver(b)
}

// send sends a datagram to the peer.
func (f *flow) send(b []byte) {
	f.used.Store(monotime.Now())
	if f.known.Load() {
		d := quicvarint.Append(make([]byte, 0, quicvarint.Len(uint64(f.stream.StreamID()))+len(b)), uint64(f.stream.StreamID()))
		var tooLong *quic.DatagramTooLargeError
		if err := f.session.conn.SendDatagram(append(d, b...)); !errors.As(err, &tooLong) {
			return
		}
	}
	f.enqueue(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
}

// enqueue lets bytes wait for the stream, or drops them if there is no room.
func (f *flow) enqueue(b []byte) {
	n := int64(len(b))
	if f.queued.Add(n) <= maxQueued {
		select {
		case f.records <- b:
			return
		default:
		}
	}
	f.queued.Add(-n)
}

// receiveDatagrams delivers the peer's QUIC datagrams until the connection ends. It drops those
// of unknown flows.
func (s *Session) receiveDatagrams() {
	for {
		b, err := s.conn.ReceiveDatagram(s.context())
		if err != nil {
			return
		}
		id, n, err := quicvarint.Parse(b)
		if err != nil {
			continue
		}
		s.mu.RLock()
		f := s.flows[quic.StreamID(id)]
		s.mu.RUnlock()
		if f != nil {
			f.receive(b[n:])
		}
	}
}

// serveUDP forwards between the peer and a target.
func (s *Session) serveUDP(stream *quic.Stream, target string) {
	c, err := dial(s.context(), "udp", target)
	if err != nil {
		s.refuse(stream, err)
		return
	}
	defer c.Close()
	// A failed write is a lost datagram: the target may listen again later.
	f := s.newFlow(s.context(), stream, func(b []byte) { _, _ = c.Write(b) })
	if err := writeAnswer(stream, c.LocalAddr(), nil); err != nil {
		f.close()
		abort(stream)
		return
	}
	var reading sync.WaitGroup
	reading.Go(func() { f.readSocket(c) })
	_ = f.run(false)
	_ = c.Close()
	reading.Wait()
}

// readSocket sends what the target sends until the flow ends.
func (f *flow) readSocket(c net.Conn) {
	b := make([]byte, maxDatagram)
	for f.ctx.Err() == nil {
		n, err := c.Read(b)
		if err == nil {
			f.send(b[:n])
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Other errors say that the target does not listen.
	}
}

// udpFlows are the flows of a listener, by the address of the client.
type udpFlows struct {
	listener *Listener
	sessions Sessions
	tasks    sync.WaitGroup
	mu       sync.Mutex // guards flows
	flows    map[netip.AddrPort]*flow
}

// runUDP is Run for UDP.
func (l *Listener) runUDP(ctx context.Context, sessions Sessions) {
	defer context.AfterFunc(ctx, func() { _ = l.udp.Close() })()
	defer l.udp.Close()
	u := &udpFlows{listener: l, sessions: sessions, flows: map[netip.AddrPort]*flow{}}
	defer u.tasks.Wait()
	b := make([]byte, maxDatagram)
	for {
		n, from, err := l.udp.ReadFromUDPAddrPort(b)
		switch {
		case err == nil:
			if f := u.flow(ctx, from); f != nil {
				f.send(b[:n])
			}
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		}
		// Other errors are about datagrams that were sent.
	}
}

// flow returns the flow of a client, or nil if there is no session, or there are too many flows.
func (u *udpFlows) flow(ctx context.Context, from netip.AddrPort) *flow {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.flows[from]; f != nil && f.ctx.Err() == nil {
		return f
	}
	session, stream, err := u.open()
	if err != nil {
		u.listener.conf.Log.Warn("dropped a datagram here", "from", from, "to", u.listener.spec.Target, "err", err)
		return nil
	}
	f := session.newFlow(ctx, stream, func(b []byte) { _, _ = u.listener.udp.WriteToUDPAddrPort(b, from) })
	f.enqueue([]byte((&request{Spec{Network: "udp", Target: u.listener.spec.Target}}).line()))
	u.flows[from] = f
	u.tasks.Go(func() { u.run(from, f) })
	return f
}

// open opens a stream for a flow, if there is a session.
func (u *udpFlows) open() (*Session, *quic.Stream, error) {
	session := u.sessions.Now()
	if session == nil {
		return nil, nil, errNotConnected
	}
	stream, err := session.openFlow()
	return session, stream, err
}

// openFlow opens a stream for a flow, and counts it until the flow has ended.
func (s *Session) openFlow() (*quic.Stream, error) {
	if s.begun.Add(1) > maxFlows {
		s.begun.Add(-1)
		return nil, errors.New("too many flows")
	}
	stream, err := s.conn.OpenStream()
	if err != nil {
		s.begun.Add(-1)
	}
	return stream, err
}

// run carries a flow, and forgets it.
func (u *udpFlows) run(from netip.AddrPort, f *flow) {
	defer f.session.begun.Add(-1)
	if err := f.run(true); err != nil {
		u.listener.conf.Log.Warn("cannot forward", "from", from, "to", u.listener.spec.Target, "err", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.flows[from] == f {
		delete(u.flows, from)
	}
}
