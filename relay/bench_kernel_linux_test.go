package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/livetest"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/xdp"
)

// rig is a sender, a relay with two interfaces, and a sink, each on a host of its own.
type rig struct {
	*testing.B
	sender, relay, sink *nettest.Host
	from, to            *udp.Socket
	key                 cid.Key        // of the sink's leg
	target              netip.AddrPort // of the flood
	received            atomic.Uint64
}

const rigRelay = "10.1.0.2:4433"

func newRig(b *testing.B) *rig {
	b.Helper()
	r := &rig{B: b, sender: nettest.NewHost(b), relay: nettest.NewHost(b), sink: nettest.NewHost(b), key: cid.NewKey(), target: netip.MustParseAddrPort(rigRelay)}
	for i, h := range []*nettest.Host{r.sender, r.sink} {
		iface, ours, theirs := fmt.Sprintf("eth%d", i), fmt.Sprintf("10.%d.0.1", i+2), fmt.Sprintf("10.%d.0.2/24", i+2)
		nettest.Cable(r.relay, iface, []string{ours + "/24"}, h, "eth0", []string{theirs})
		h.Route("10.1.0.0/24", ours)
		r.relay.Sysctl("net/ipv4/conf/"+iface+"/forwarding", "1")
	}
	r.relay.Address("lo", "10.1.0.2/32")
	r.from = r.socket(r.sender.Listen("10.2.0.2:2000"))
	r.to = r.socket(r.sink.Listen("10.3.0.2:3000"))
	go r.count()
	return r
}

func (r *rig) socket(conn net.PacketConn) *udp.Socket {
	r.Helper()
	s, err := udp.New(conn, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { s.Close() })
	return s
}

// count reads and counts the packets that arrive.
func (r *rig) count() {
	batch := make([]udp.Message, batchSize)
	for {
		n, err := r.to.ReadBatch(batch)
		if err != nil {
			return
		}
		for i := range batch[:n] {
			r.received.Add(uint64(batch[i].Count()))
		}
	}
}

// serve runs a relay that knows both ends.
func (r *rig) serve(program *xdp.Program) *Server {
	r.Helper()
	s, err := New(&Config{XDP: program, Secret: bytes.Repeat([]byte("s"), minSecret)}, r.relay.Listen(rigRelay))
	if err != nil {
		r.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Run(context.Background()) }()
	r.Cleanup(func() {
		s.Close()
		<-served
	})
	if sessions, _ := s.sessions.count(); sessions == 0 {
		r.meet(s)
	}
	return s
}

// meet opens a session of the sender and the sink.
func (r *rig) meet(s *Server) {
	r.Helper()
	keys := [2]cid.Key{control.Dialer: cid.NewKey(), control.Accepter: r.key}
	openSession(r.B, s, keys, [2]netip.AddrPort{r.from.LocalAddr(), r.to.LocalAddr()}, netip.MustParseAddr("10.1.0.2"))
}

// openSession opens a session of legs with these addresses, as if both had registered.
func openSession(b *testing.B, s *Server, keys [2]cid.Key, remotes [2]netip.AddrPort, local netip.Addr) {
	b.Helper()
	ses, err := s.sessions.open(control.NewSessionID(), s.secrets.tokens.account(""), uncounted)
	if err != nil {
		b.Fatal(err)
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for role, remote := range remotes {
		putLegLocked(&ses.legs[role], keys[role], legAddr{remote: remote, local: local})
	}
}

// program loads a program, and attach attaches it, with what veth needs beside it.
func (r *rig) program(pin string) *xdp.Program {
	r.Helper()
	p := xdptest.Load(r, &xdp.Config{Sessions: 16, Pin: pin})
	return p
}

func (r *rig) attach(p *xdp.Program, mode xdp.Mode) {
	r.Helper()
	for _, iface := range []string{"eth0", "eth1"} {
		r.relay.Do(func() error { _, err := p.Attach(iface, mode); return err })
	}
}

func (r *rig) detach(p *xdp.Program) {
	r.Helper()
	for _, iface := range []string{"eth0", "eth1"} {
		r.relay.Do(func() error { return p.Detach(iface) })
	}
}

// veths lets these hand on what a native program sends.
func (r *rig) veths() {
	r.sender.PassXDP("eth0")
	r.sink.PassXDP("eth0")
}

// train makes a train of packets to the leg of the sink.
func (r *rig) train(packets int) *udp.Message {
	packet := append([]byte{0x40}, r.key.ID(cid.Peer, 0).Bytes()...)
	packet = append(packet, make([]byte, benchPacket-len(packet))...)
	return &udp.Message{Data: bytes.Repeat(packet, packets), SegmentSize: benchPacket, Remote: r.target}
}

// BenchmarkEndToEnd measures how many packets of a sender with UDP GSO arrive, and the CPU
// time of each, including that of the sender and the sink. The relay is the XDP program,
// the loop of this package, or a simple loop. One op is one packet that has arrived.
func BenchmarkEndToEnd(b *testing.B) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		b.Run("kernel/"+mode.String(), func(b *testing.B) {
			r := newRig(b)
			p := r.program("")
			r.serve(p)
			if mode == xdp.Native {
				r.veths()
			}
			r.attach(p, mode)
			r.flood()
		})
	}
	b.Run("loop", func(b *testing.B) {
		r := newRig(b)
		r.serve(nil)
		r.flood()
	})
	b.Run("plain", func(b *testing.B) {
		r := newRig(b)
		routes := make(map[cid.ID]netip.AddrPort)
		for counter := range uint64(cid.Ahead) {
			routes[r.key.ID(cid.Peer, counter)] = r.to.LocalAddr()
		}
		r.plain(rigRelay, routes)
		r.flood()
	})
}

// plain runs the loop that everybody writes first, and returns its socket.
func (r *rig) plain(addr string, routes map[cid.ID]netip.AddrPort) *net.UDPConn {
	conn := r.relay.Listen(addr)
	var running sync.WaitGroup
	running.Go(func() {
		_ = (&livetest.Plain{Conn: conn, Routes: routes}).Run() // until it is closed
	})
	r.Cleanup(func() {
		conn.Close()
		running.Wait()
	})
	return conn
}

// flood sends as fast as possible until b.N packets have arrived.
func (r *rig) flood() {
	r.warm()
	r.ResetTimer()
	f := r.turn(uint64(r.N))
	r.StopTimer()
	r.ReportMetric(f.pps, "pps")
	r.ReportMetric(f.cpu, "cpu-ns/packet")
}

// warm sends for a moment, so that neighbors and next hops are known.
func (r *rig) warm() {
	m := r.train(benchTrain)
	for warm := time.Now().Add(100 * time.Millisecond); time.Now().Before(warm); {
		_ = r.from.Write(m)
	}
}

// flooded is what a flood has shown: packets per second, and the time of all CPUs for each, in nanoseconds.
type flooded struct{ pps, cpu float64 }

// turn sends as fast as possible until so many packets have arrived.
func (r *rig) turn(packets uint64) flooded {
	r.Helper()
	m := r.train(benchTrain)
	start, busy, began := r.received.Load(), busyTime(r.B), time.Now()
	for deadline := began.Add(time.Minute); r.received.Load()-start < packets; {
		for range 64 {
			_ = r.from.Write(m)
		}
		if time.Now().After(deadline) {
			r.Fatalf("%d packets have arrived, want %d", r.received.Load()-start, packets)
		}
	}
	n, took := float64(r.received.Load()-start), time.Since(began)
	return flooded{n / took.Seconds(), float64((busyTime(r.B) - busy).Nanoseconds()) / n}
}

// busyTime returns how long all CPUs together have been busy.
func busyTime(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var ticks int64
	for i, field := range strings.Fields(line)[1:] {
		const idle, iowait, guest = 3, 4, 8 // guest is in user as well
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != idle && i != iowait && i < guest {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// BenchmarkSwitch counts the packets that are lost when the program is attached, detached,
// or taken over by another server, at 20 000 packets per second from one NIC to the other.
// One op is one such change.
func BenchmarkSwitch(b *testing.B) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		b.Run(mode.String()+"/attach", func(b *testing.B) { benchSwitch(b, mode, (*rig).attaching) })
		b.Run(mode.String()+"/takeover", func(b *testing.B) { benchSwitch(b, mode, (*rig).takingOver) })
	}
}

// changer prepares a rig, and returns a function that makes one change.
type changer func(*rig, xdp.Mode) func()

// attaching attaches and detaches the program alternately.
func (r *rig) attaching(mode xdp.Mode) func() {
	p := r.program("")
	r.serve(p)
	attached := false
	return func() {
		if attached {
			r.detach(p)
		} else {
			r.attach(p, mode)
		}
		attached = !attached
	}
}

// takingOver lets one server after the other take over the pinned program.
func (r *rig) takingOver(mode xdp.Mode) func() {
	pin := filepath.Join(nettest.BPFFS(r), "quicway")
	p := r.program(pin)
	s := r.serve(p)
	r.attach(p, mode)
	r.Cleanup(func() {
		s.Close()
		p.Close()
		if err := xdp.Unpin(pin); err != nil {
			r.Error(err)
		}
	})
	return func() {
		if err := errors.Join(s.Close(), p.Close()); err != nil {
			r.Fatal(err)
		}
		p = r.program(pin)
		s = r.serve(p)
		r.attach(p, mode)
	}
}

func benchSwitch(b *testing.B, mode xdp.Mode, prepare changer) {
	r := newRig(b)
	if mode == xdp.Native {
		r.veths()
	}
	change := prepare(r, mode)
	stop := make(chan struct{})
	sent := make(chan uint64)
	go func() { sent <- r.pace(stop) }()
	time.Sleep(100 * time.Millisecond)
	b.ResetTimer()
	for range b.N {
		change()
		time.Sleep(50 * time.Millisecond)
	}
	b.StopTimer()
	close(stop)
	total := <-sent
	for last := r.received.Load() + 1; last != r.received.Load(); time.Sleep(100 * time.Millisecond) {
		last = r.received.Load()
	}
	b.ReportMetric(float64(total-r.received.Load())/float64(b.N), "lost/op")
	b.ReportMetric(float64(total)/float64(b.N), "sent/op")
}

// pace sends 20 packets per millisecond, and counts them.
func (r *rig) pace(stop <-chan struct{}) (sent uint64) {
	const packets = 20
	m := r.train(packets)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return sent
		case <-ticker.C:
			binary.BigEndian.PutUint64(m.Data[1+cid.Len:], sent)
			if r.from.Write(m) == nil {
				sent += packets
			}
		}
	}
}

// BenchmarkSessionMemory measures the Go memory of a session with two legs, including the
// IDs in the store. The kernel's memory is measured by package datapath.
func BenchmarkSessionMemory(b *testing.B) {
	const sessions = 4096
	for range b.N {
		b.StopTimer()
		s, err := New(nil, nettest.New(1).Listen(relayAddr))
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		b.StartTimer()
		for range sessions {
			openPair(b, s)
		}
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/sessions, "B/session")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func openPair(b *testing.B, s *Server) {
	remotes := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.3:1")}
	openSession(b, s, [2]cid.Key{cid.NewKey(), cid.NewKey()}, remotes, netip.MustParseAddr("192.0.2.1"))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
