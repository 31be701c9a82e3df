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

// wantedBuffer is the size of socket buffers that QUIC needs at high rates, in bytes.
const wantedBuffer = 7 << 20

// Config configures a [Socket]. The zero value works.
type Config struct {
	// DisableGRO and DisableGSO disable trains when receiving and sending, for
	// network drivers with bugs. See also [Socket.SetGSO].
	DisableGRO, DisableGSO bool
	// ReadBuffer and WriteBuffer are the sizes of the kernel's buffers to ask for, in
	// bytes. 0 means 7 MiB. The kernel may grant less.
	ReadBuffer, WriteBuffer int
	// Unpolled makes a read that waits keep a thread, which costs less for each packet than Go's
	// poller. It is for the few sockets of a relay, which forwards many packets that arrive one
	// by one. The conn is closed, because the Socket uses a duplicate. Deadlines are not
	// supported. It has an effect on Linux only, unless a sandbox forbids ppoll(2).
	Unpolled bool
}

// Stats are the counters of a [Socket].
type Stats struct {
	// Packets, bytes of payload, and calls of ReadBatch, WriteBatch and Write.
	RxPackets, RxBytes, RxBatches uint64
	TxPackets, TxBytes, TxBatches uint64
	// RxOverflow counts packets that the kernel dropped because they were
	// not read in time (SO_RXQ_OVFL).
	RxOverflow uint64
	// RxErrors counts reads that failed, for example after an ICMP error.
	RxErrors uint64
	// TxErrors counts packets that the kernel refused to send.
	TxErrors uint64
	// GSOFallbacks counts trains that had to be sent packet by packet.
	GSOFallbacks uint64
}

// engine reads and writes messages: in batches, or one by one.
type engine interface {
	// read blocks until there is at least one message.
	read(ms []Message) (int, error)
	// write sends messages, and returns the error of the last one that the kernel
	// has refused. Calls may be concurrent.
	write(ms []Message) error
}

// Socket is a UDP socket. One goroutine may read at a time, and any number may write.
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

// New makes a Socket of conn. The Socket owns conn, unless New fails. A *net.UDPConn is read
// and written in batches if the system supports that. The addresses of any other
// net.PacketConn must be *net.UDPAddr. cfg may be nil.
func New(conn net.PacketConn, cfg *Config) (*Socket, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("address %v of the conn is not a UDP address", conn.LocalAddr())
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

// ReadBatch waits until there is a message, and reads as many as there are, at most len(ms).
// It returns how many. Their Data is valid until the next call, which may clear all of ms.
// Only one goroutine may read at a time. It returns net.ErrClosed if the socket is closed,
// os.ErrDeadlineExceeded, or another error if the socket has failed. Errors that a single packet
// causes are counted, not returned.
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

// WriteBatch sends messages. It skips and counts those that the kernel refuses, and returns
// the error of the last one, or net.ErrClosed.
func (s *Socket) WriteBatch(ms []Message) error {
	s.stats.txBatches.Add(1)
	return s.engine.write(ms)
}

// Write sends one message, and returns the kernel's error. See [IsMessageTooLong].
func (s *Socket) Write(m *Message) error {
	one := s.single.Get().(*[1]Message)
	one[0] = *m
	err := s.WriteBatch(one[:])
	one[0] = Message{}
	s.single.Put(one)
	return err
}

// sent counts packets that the kernel has accepted.
func (s *Socket) sent(packets, bytes int) {
	s.stats.txPackets.Add(uint64(packets))
	s.stats.txBytes.Add(uint64(bytes))
}

// SetReadDeadline makes reads return os.ErrDeadlineExceeded from t on. With Config.Unpolled it
// returns an error on Linux.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Close closes the socket. A blocked ReadBatch returns net.ErrClosed.
func (s *Socket) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// LocalAddr returns the address that the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Conn returns the conn that the socket was made of or, with Config.Unpolled, on Linux, one
// that only has an address and a SyscallConn.
func (s *Socket) Conn() net.PacketConn { return s.conn }

// GRO says whether received messages may be trains.
func (s *Socket) GRO() bool { return s.gro }

// GSO says whether the kernel gets trains as one message. If not, trains may be written all
// the same, and are sent packet by packet.
func (s *Socket) GSO() bool { return s.gso.Load() }

// SetGSO sets whether the kernel gets trains as one message. Switch it off if a network driver
// has a bug. If it is on and the kernel does not support it, writes are slower, but correct.
func (s *Socket) SetGSO(on bool) { s.gso.Store(on) }

// Stats returns the counters.
func (s *Socket) Stats() Stats { return s.stats.load() }

func (c *counters) load() Stats {
	return Stats{
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), RxBatches: c.rxBatches.Load(),
		TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(), TxBatches: c.txBatches.Load(),
		RxOverflow: c.rxOverflow.Load(), RxErrors: c.rxErrors.Load(),
		TxErrors: c.txErrors.Load(), GSOFallbacks: c.gsoFallbacks.Load(),
	}
}

// setBuffers asks for large buffers. It ignores errors: smaller buffers work as well.
func setBuffers(conn *net.UDPConn, read, write int) {
	_ = conn.SetReadBuffer(read)
	_ = conn.SetWriteBuffer(write)
	forceBuffers(conn, read, write)
}
