package quota

import (
	"net"
	"sync"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

// PacketConn returns a conn that reads from another what the filter lets pass.
// idLen is the length of the connection IDs that are made by who reads it: 4
// unless its [quic.Transport] says otherwise. [Controller.Protect] does all this.
//
// If conn is a *net.UDPConn, or another that quic-go reads in batches, so is the
// conn that is returned, and ECN, GSO and path MTU discovery are what they were.
// Closing it closes conn.
//
// What is written to an address that has not been validated is not more than three
// times what came from it (RFC 9000 §8.1, §8.2.1); the rest is counted
// (Stats.Withheld), and lost. So are packets that the system refuses
// (Stats.SendErrors), of which quic-go hears nothing unless they were too long: it
// would end the connection.
//
// With [Config.XDP] the port of conn is under the quota in the kernel, too, until
// the conn that is returned or the controller is closed. A conn that shares its
// socket with others, as those of package relay do, is left to Go.
func (c *Controller) PacketConn(conn net.PacketConn, idLen int) net.PacketConn {
	plain := &filteredConn{
		PacketConn: conn,
		filter:     filter{c: c, idLen: idLen},
		unguard:    c.guard(conn, idLen),
	}
	if _, shared := conn.(udp.Conn); !shared {
		plain.limit = amplify.New(amplify.Config{IDLen: idLen, Dials: true, Guess: true})
	}
	oob, ok := conn.(quic.OOBCapablePacketConn)
	if raw, isRaw := conn.(syscall.Conn); isRaw && !ok {
		return struct {
			*filteredConn
			syscall.Conn // by which quic-go has path MTU discovery
		}{plain, raw}
	}
	if !ok {
		return plain
	}
	out := &filteredOOBConn{filteredConn: plain, oob: oob}
	if out.batch, ok = conn.(batchReader); !ok {
		if _, ok := conn.(net.Conn); !ok {
			return plain // what ipv4 wants, and quic-go
		}
		out.batch = ipv4.NewPacketConn(conn)
	}
	return out
}

// amplification is the conn's limit, or nil.
func (f *filteredConn) amplification() *amplify.Limit { return f.limit }

// controller is whose filter it is.
func (f *filteredConn) controller() *Controller { return f.filter.c }

// batchReader is how quic-go reads several datagrams at once.
type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// filteredConn reads packet by packet.
type filteredConn struct {
	net.PacketConn
	filter filter
	// limit is of what is sent to addresses that are not validated. nil: whoever
	// shares the socket has one.
	limit *amplify.Limit
	// unguard takes its port from the enforcer, once.
	unguard func()
}

// guard puts the port of a conn under the quota in the kernel, if all that comes
// to it is for whoever reads the conn.
func (c *Controller) guard(conn net.PacketConn, idLen int) (unguard func()) {
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if _, shared := conn.(udp.Conn); shared || !ok {
		return func() {}
	}
	port := uint16(local.Port)
	c.enforcer.guard(port, idLen)
	return sync.OnceFunc(func() { c.enforcer.unguard(port) })
}

// Close closes the conn below.
func (f *filteredConn) Close() error {
	f.unguard()
	return f.PacketConn.Close()
}

// ReadFrom implements [net.PacketConn].
func (f *filteredConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := f.PacketConn.ReadFrom(b)
		if err != nil {
			return n, addr, err
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

// maySend says whether a packet may go to an address, and counts it if not.
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

// sendError counts a packet that the system has refused, and says what quic-go hears.
func (f *filteredConn) sendError(err error) error {
	f.filter.c.counters.sendErrors.Add(1)
	return udp.ForQUIC(err)
}

// SetReadBuffer is for quic-go, which wants large buffers.
func (f *filteredConn) SetReadBuffer(bytes int) error {
	if conn, ok := f.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return conn.SetReadBuffer(bytes)
	}
	return nil
}

// SetWriteBuffer is for quic-go, which wants large buffers.
func (f *filteredConn) SetWriteBuffer(bytes int) error {
	if conn, ok := f.PacketConn.(interface{ SetWriteBuffer(int) error }); ok {
		return conn.SetWriteBuffer(bytes)
	}
	return nil
}

// passOne judges a packet that comes alone.
func (f *filteredConn) passOne(addr net.Addr, b []byte) bool {
	var count tally
	pass := f.pass(addr, b, f.filter.c.now(), &count)
	count.flush(f.filter.c)
	return pass
}

// pass judges a packet and counts it.
func (f *filteredConn) pass(addr net.Addr, b []byte, now instant, count *tally) bool {
	from := addrPort(addr)
	if !from.IsValid() {
		return true // of no kind that a filter knows
	}
	pass, why := f.filter.judge(from, b, now)
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

// dialed lets those answer to whom this transport dials: their Initials carry IDs
// of ours.
func (f *filteredConn) dialed(b []byte, addr net.Addr) {
	if len(b) < minInitial || !wire.IsLong(b[0]) || f.filter.idLen < minFirstID {
		return
	}
	if h, err := wire.Parse(b, 0); err != nil || h.Type != wire.Initial || len(h.DstID) < minFirstID {
		return
	}
	to := addrPort(addr)
	c := f.filter.c
	sh, endpoint := c.shardOf(to.Addr()), c.flowTag(to, nil)
	sh.mu.Lock()
	sh.flows.put(endpoint, c.now()+instant(c.conf.HandshakeTimeout), false)
	sh.mu.Unlock()
	c.enforcer.expect(to, c.conf.HandshakeTimeout)
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

// ReadBatch reads what passes, in the places of what does not: the memory that a
// message has belongs to its place, as quic-go sees it.
func (f *filteredOOBConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := f.batch.ReadBatch(ms, flags)
		if err != nil {
			return n, err
		}
		var count tally
		now, kept := f.filter.c.now(), 0
		for i := range ms[:n] {
			if !f.pass(ms[i].Addr, ms[i].Buffers[0][:ms[i].N], now, &count) {
				continue
			}
			if kept != i {
				moveMessage(&ms[kept], &ms[i])
			}
			kept++
		}
		count.flush(f.filter.c)
		if kept > 0 || n == 0 {
			return kept, nil
		}
	}
}

// moveMessage copies a message into the memory of another.
func moveMessage(to, from *ipv4.Message) {
	to.N = copy(to.Buffers[0], from.Buffers[0][:from.N])
	to.NN = copy(to.OOB, from.OOB[:from.NN])
	to.Addr, to.Flags = from.Addr, from.Flags
}

// ReadMsgUDP is how quic-go reads where it does not read batches.
func (f *filteredOOBConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	for {
		n, oobn, flags, addr, err = f.oob.ReadMsgUDP(b, oob)
		if err != nil {
			return n, oobn, flags, addr, err
		}
		if f.passOne(addr, b[:n]) {
			return n, oobn, flags, addr, nil
		}
	}
}

// WriteMsgUDP is how quic-go writes.
func (f *filteredOOBConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	f.dialed(b, addr)
	if !f.maySend(b, addr) {
		return len(b), len(oob), nil
	}
	if n, oobn, err := f.oob.WriteMsgUDP(b, oob, addr); err != nil {
		if udp.IsOffload(err) && udp.IsTrain(oob) {
			return n, oobn, err // quic-go sends its packets one by one then
		}
		return len(b), len(oob), f.sendError(err)
	}
	return len(b), len(oob), nil
}

// SyscallConn lends the socket below to quic-go, to ask it what it can.
func (f *filteredOOBConn) SyscallConn() (syscall.RawConn, error) { return f.oob.SyscallConn() }

// SetReadBuffer implements [quic.OOBCapablePacketConn].
func (f *filteredOOBConn) SetReadBuffer(bytes int) error { return f.oob.SetReadBuffer(bytes) }
