package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// wantedBuffer is what QUIC at high rates needs of socket buffers, in bytes.
const wantedBuffer = 7 << 20

// Config configures a [Socket]. The zero value works.
type Config struct {
	// DisableGRO and DisableGSO do without the kernel's help with trains,
	// which some network drivers get wrong. See also [Socket.SetGSO].
	DisableGRO, DisableGSO bool
	// ReadBuffer and WriteBuffer are the wanted sizes of the kernel's
	// buffers in bytes. 0 means 7 MiB. The kernel may grant less.
	ReadBuffer, WriteBuffer int
}

// Stats counts what a [Socket] has moved.
type Stats struct {
	// Packets, payload bytes, and the reads and writes that they took.
	RxPackets, RxBytes, RxBatches uint64
	TxPackets, TxBytes, TxBatches uint64
	// RxOverflow counts packets that the kernel dropped because they were
	// not read in time (SO_RXQ_OVFL).
	RxOverflow uint64
	// RxErrors counts reads that failed, as after ICMP errors.
	RxErrors uint64
	// TxErrors counts packets that the kernel refused.
	TxErrors uint64
	// GSOFallbacks counts trains that had to be sent packet by packet.
	GSOFallbacks uint64
}

// engine is how a socket moves messages: the kernel's batches, or one by one.
type engine interface {
	// read blocks for at least one message.
	read(ms []Message) (int, error)
	// write sends all that it can and returns the error of the last message
	// that the kernel refused. It is called concurrently.
	write(ms []Message) error
}

// Socket is a UDP socket. One goroutine may read while any number write.
type Socket struct {
	conn   net.PacketConn
	local  netip.AddrPort
	engine engine
	gro    bool
	gso    atomic.Bool
	single sync.Pool // of *[1]Message, for Write
	stats  counters
}

type counters struct {
	rxPackets, rxBytes, rxBatches, rxOverflow, rxErrors   atomic.Uint64
	txPackets, txBytes, txBatches, txErrors, gsoFallbacks atomic.Uint64
}

// New makes a Socket of conn, which it owns unless New fails. A *net.UDPConn
// gets the kernel's batches where there are any; any other net.PacketConn must
// have *net.UDPAddr addresses. cfg may be nil.
func New(conn net.PacketConn, cfg *Config) (*Socket, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("address %v of the conn is no UDP address", conn.LocalAddr())
	}
	s := &Socket{conn: conn, local: unmap(local.AddrPort())}
	s.single.New = func() any { return new([1]Message) }
	if udp, ok := conn.(*net.UDPConn); ok {
		setBuffers(udp, orDefault(cfg.ReadBuffer), orDefault(cfg.WriteBuffer))
		engine, err := newKernelEngine(s, udp, cfg)
		if err != nil {
			return nil, fmt.Errorf("set up socket: %w", err)
		}
		s.engine = engine
		return s, nil
	}
	s.engine = newPlainEngine(s)
	return s, nil
}

func orDefault(size int) int {
	if size == 0 {
		return wantedBuffer
	}
	return size
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// ReadBatch waits for at least one message and reads as many as there are room
// for and data. Their Data is valid until the next call; one goroutine may read
// at a time. An error means that the socket is closed (net.ErrClosed), a
// deadline has passed, or it works no more: what a single packet caused is
// counted instead.
func (s *Socket) ReadBatch(ms []Message) (int, error) {
	n, err := s.engine.read(ms)
	if err != nil {
		return 0, err
	}
	var packets, bytes uint64
	for i := range ms[:n] {
		packets += uint64(ms[i].Count())
		bytes += uint64(len(ms[i].Data))
	}
	s.stats.rxBatches.Add(1)
	s.stats.rxPackets.Add(packets)
	s.stats.rxBytes.Add(bytes)
	return n, nil
}

// WriteBatch sends messages. Those that the kernel refuses are counted and
// passed over. The error is that of the last such, or net.ErrClosed.
func (s *Socket) WriteBatch(ms []Message) error {
	s.stats.txBatches.Add(1)
	return s.engine.write(ms)
}

// Write sends one message and returns the kernel's error, if any; see
// [IsMessageTooLong].
func (s *Socket) Write(m *Message) error {
	one := s.single.Get().(*[1]Message)
	one[0] = *m
	err := s.WriteBatch(one[:])
	one[0] = Message{}
	s.single.Put(one)
	return err
}

// sent counts what the kernel took.
func (s *Socket) sent(packets, bytes int) {
	s.stats.txPackets.Add(uint64(packets))
	s.stats.txBytes.Add(uint64(bytes))
}

// SetReadDeadline makes reads return os.ErrDeadlineExceeded from t on.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Close closes the socket. Whoever reads gets net.ErrClosed.
func (s *Socket) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// LocalAddr returns the address that the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Conn returns what the socket was made of.
func (s *Socket) Conn() net.PacketConn { return s.conn }

// GRO says whether the kernel may deliver trains.
func (s *Socket) GRO() bool { return s.gro }

// GSO says whether trains are sent as such. Where they are not they still may
// be written: they go out packet by packet.
func (s *Socket) GSO() bool { return s.gso.Load() }

// SetGSO switches it, for when a network driver turns out to get it wrong.
// Switching it on where the kernel has none makes writes slow, not wrong.
func (s *Socket) SetGSO(on bool) { s.gso.Store(on) }

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	c := &s.stats
	return Stats{
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), RxBatches: c.rxBatches.Load(),
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(), TxBatches: c.txBatches.Load(),
		RxOverflow: c.rxOverflow.Load(), RxErrors: c.rxErrors.Load(),
		TxErrors: c.txErrors.Load(), GSOFallbacks: c.gsoFallbacks.Load(),
	}
}

// setBuffers asks for large buffers. Whatever the kernel grants will do.
func setBuffers(conn *net.UDPConn, read, write int) {
	_ = conn.SetReadBuffer(read)
	_ = conn.SetWriteBuffer(write)
	forceBuffers(conn, read, write)
}
