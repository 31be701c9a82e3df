package quota

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// PacketConn returns a conn that reads from conn those packets that the filter lets
// pass. It is for implementations of QUIC other than quic-go, together with
// [Controller.WantsRetry] and [Controller.Admit]: [Controller.Transport] does all of this
// for quic-go. idLen is the length of the connection IDs of the server that reads the conn.
//
// If conn is a *net.UDPConn, or another conn that quic-go reads in batches, so is the
// conn that is returned, with the same ECN, GSO and path MTU discovery. Closing it
// closes conn.
//
// The conn that is returned sends to an address that is not validated at most three
// times what it has received from it (RFC 9000 §8.1, §8.2.1). It counts further packets
// ([Stats].Withheld) and does not send them. It also counts packets that the system
// refuses to send ([Stats].SendErrors). It reports no error for them unless they were
// too long, since quic-go would close the connection.
//
// With [Config].XDP the port of conn is under the quota in the kernel as well, until the
// returned conn or the controller is closed. This is not so for a conn that shares its
// socket with others, like those of package relay.
func (c *Controller) PacketConn(conn net.PacketConn, idLen int) net.PacketConn {
	return c.packetConn(conn, idLen, func() {})
}

// packetConn is PacketConn with a function that is called once when the conn is released.
func (c *Controller) packetConn(conn net.PacketConn, idLen int, released func()) net.PacketConn {
	unguard := guardPort(c.enforcement.enforcer, conn, idLen)
	plain := &filteredConn{
		PacketConn: conn,
		filter:     filter{c: c, idLen: idLen},
		release:    sync.OnceFunc(func() { unguard(); released() }),
	}
	if _, shared := conn.(udp.Conn); !shared {
		plain.limit = amplify.New(amplify.Config{IDLen: idLen, Dials: true, Guess: true})
	}
	oob, ok := conn.(quic.OOBCapablePacketConn)
	if raw, isRaw := conn.(syscall.Conn); isRaw && !ok {
		return struct {
			*filteredConn
			syscall.Conn // quic-go needs it for path MTU discovery
		}{plain, raw}
	}
	if !ok {
		return plain
	}
	out := &filteredOOBConn{filteredConn: plain, oob: oob}
	if out.batch, ok = conn.(batchReader); !ok {
		if _, ok := conn.(net.Conn); !ok {
			return plain // package ipv4 and quic-go require a net.Conn
		}
		out.batch = ipv4.NewPacketConn(conn)
	}
	return out
}

// filtered returns f, also from the conns that embed it.
func (f *filteredConn) filtered() *filteredConn { return f }

// batchReader is the method by which quic-go reads several datagrams at once.
type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// filteredConn is a conn with a filter. It reads one packet at a time.
type filteredConn struct {
	net.PacketConn
	filter filter
	// limit limits what is sent to addresses that are not validated. It is nil if
	// the socket is shared: its owner has the limit then.
	limit *amplify.Limit
	// release ends the enforcer's quota for the port, and lets another transport have the
	// conn below. It may be called repeatedly.
	release func()
}

// guardPort puts the port of a conn under the quota in the kernel, unless the conn
// shares its socket with others.
func guardPort(e enforcer, conn net.PacketConn, idLen int) (unguard func()) {
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if _, shared := conn.(udp.Conn); shared || !ok {
		return func() {}
	}
	port := uint16(local.Port)
	e.guard(port, idLen)
	return func() { e.unguard(port) }
}

// Close closes the conn below.
func (f *filteredConn) Close() error {
	f.release()
	return f.PacketConn.Close()
}

// readError releases the conn if it was closed: its owner may have closed the one below. It
// returns the error.
func (f *filteredConn) readError(err error) error {
	if errors.Is(err, net.ErrClosed) {
		f.release()
	}
	return err
}

// ReadFrom implements [net.PacketConn].
func (f *filteredConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := f.PacketConn.ReadFrom(b)
		if err != nil {
			return n, addr, f.readError(err)
		}
		if f.passOne(addr, b[:n]) {
			return n, addr, nil
		}
	}
}

// WriteTo implements [net.PacketConn].
func (f *filteredConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	f.dialed(b, addr)
	if !f.maySend(b, addr) {
		return len(b), nil
	}
	if _, err := f.PacketConn.WriteTo(b, addr); err != nil {
		return len(b), f.sendError(err)
	}
	return len(b), nil
}

// maySend reports whether a packet may be sent to an address, and counts it if not.
func (f *filteredConn) maySend(b []byte, addr net.Addr) bool {
	if f.limit == nil {
		return true
	}
	to := addrPort(addr)
	if !to.IsValid() || f.limit.MaySend(to, b) {
		return true
	}
	f.filter.c.counters.withheld.Add(1)
	return false
}

// sendError counts a packet that the system refused to send, and returns the error for
// quic-go.
func (f *filteredConn) sendError(err error) error {
	f.filter.c.counters.sendErrors.Add(1)
	return udp.ForQUIC(err)
}

// SetReadBuffer is called by quic-go.
func (f *filteredConn) SetReadBuffer(bytes int) error {
	if conn, ok := f.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return conn.SetReadBuffer(bytes)
	}
	return nil
}

// SetWriteBuffer is called by quic-go.
func (f *filteredConn) SetWriteBuffer(bytes int) error {
	if conn, ok := f.PacketConn.(interface{ SetWriteBuffer(int) error }); ok {
		return conn.SetWriteBuffer(bytes)
	}
	return nil
}

// passOne is pass for a single packet.
func (f *filteredConn) passOne(addr net.Addr, b []byte) bool {
	var count tally
	pass := f.pass(addr, b, f.filter.c.clock.now(), &count)
	count.flush(f.filter.c.counters)
	return pass
}

// pass reports whether a packet passes the filter, and counts it.
func (f *filteredConn) pass(addr net.Addr, b []byte, now instant, count *tally) bool {
	from := addrPort(addr)
	if !from.IsValid() {
		return true // the filter is for UDP only
	}
	pass, why := f.filter.decide(from, b, now)
	if pass {
		count.passed[why]++
	} else {
		count.dropped[why]++
		pass = f.filter.c.conf.DryRun
	}
	if pass && f.limit != nil {
		f.limit.Received(from, b, len(b))
	}
	return pass
}

// dialed is called for each packet that is sent. If it is an Initial that opens a
// connection, the filter expects the peer's answer.
func (f *filteredConn) dialed(b []byte, addr net.Addr) {
	if len(b) < minInitial || !wire.IsLong(b[0]) || f.filter.idLen < minFirstID {
		return
	}
	if h, err := wire.Parse(b, 0); err != nil || h.Type != wire.Initial || len(h.DstID) < minFirstID {
		return
	}
	f.filter.expectAnswer(addrPort(addr))
}

// filteredOOBConn reads in batches, with out-of-band data.
type filteredOOBConn struct {
	*filteredConn
	oob   quic.OOBCapablePacketConn
	batch batchReader
}

var _ interface {
	quic.OOBCapablePacketConn
	batchReader
} = (*filteredOOBConn)(nil)

// ReadBatch moves the packets that pass to the front of ms. It copies them: quic-go
// expects that each message of ms keeps its own buffers.
func (f *filteredOOBConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := f.batch.ReadBatch(ms, flags)
		if err != nil {
			return n, f.readError(err)
		}
		var count tally
		now, kept := f.filter.c.clock.now(), 0
		for i := range ms[:n] {
			if !f.pass(ms[i].Addr, ms[i].Buffers[0][:ms[i].N], now, &count) {
				continue
			}
			if kept != i {
				moveMessage(&ms[kept], &ms[i])
			}
			kept++
		}
		count.flush(f.filter.c.counters)
		if kept > 0 || n == 0 {
			return kept, nil
		}
	}
}

// moveMessage copies a message into the buffers of another.
func moveMessage(to, from *ipv4.Message) {
	to.N = copy(to.Buffers[0], from.Buffers[0][:from.N])
	to.NN = copy(to.OOB, from.OOB[:from.NN])
	to.Addr, to.Flags = from.Addr, from.Flags
}

// ReadMsgUDP is called by quic-go where it does not read batches.
func (f *filteredOOBConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	for {
		n, oobn, flags, addr, err = f.oob.ReadMsgUDP(b, oob)
		if err != nil {
			return n, oobn, flags, addr, f.readError(err)
		}
		if f.passOne(addr, b[:n]) {
			return n, oobn, flags, addr, nil
		}
	}
}

// WriteMsgUDP is called by quic-go.
func (f *filteredOOBConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	f.dialed(b, addr)
	if !f.maySend(b, addr) {
		return len(b), len(oob), nil
	}
	if n, oobn, err := f.oob.WriteMsgUDP(b, oob, addr); err != nil {
		if udp.IsOffload(err) && udp.IsTrain(oob) {
			return n, oobn, err // quic-go then sends the packets one by one
		}
		return len(b), len(oob), f.sendError(err)
	}
	return len(b), len(oob), nil
}

// SyscallConn is called by quic-go to query and set socket options.
func (f *filteredOOBConn) SyscallConn() (syscall.RawConn, error) { return f.oob.SyscallConn() }

// SetReadBuffer implements [quic.OOBCapablePacketConn].
func (f *filteredOOBConn) SetReadBuffer(bytes int) error { return f.oob.SetReadBuffer(bytes) }
