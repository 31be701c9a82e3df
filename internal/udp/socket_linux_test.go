package udp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestTrainStaysTrain checks that a train that is sent with GSO is received with GRO as one
// message.
func TestTrainStaysTrain(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)
	if !a.GSO() || !b.GRO() {
		nettest.Missing(t, "this kernel has no UDP_SEGMENT or UDP_GRO")
	}
	train := Message{Data: pattern(20*1200 + 3), SegmentSize: 1200, Remote: b.LocalAddr()}
	if err := a.Write(&train); err != nil {
		t.Fatal(err)
	}
	got := receive(t, b, 21)
	if len(got) != 1 || got[0].SegmentSize != 1200 || len(got[0].Data) != len(train.Data) {
		t.Errorf("%d messages, first has %d bytes in segments of %d", len(got), len(got[0].Data), got[0].SegmentSize)
	}
	if s := b.Stats(); s.RxBatches != 1 {
		t.Errorf("%d reads, want 1", s.RxBatches)
	}
}

// TestECN checks that a packet is received with the ECN mark with which it was sent.
func TestECN(t *testing.T) {
	for _, addrs := range [][2]string{
		{"127.0.0.1:0", "127.0.0.1:0"},
		{"[::1]:0", "[::1]:0"},
		{"[::]:0", "127.0.0.1:0"}, // a dual-stack socket sends IPv4
	} {
		a, b := listen(t, "udp", addrs[0], nil), listen(t, "udp", addrs[1], nil)
		for ecn := byte(0); ecn < 4; ecn++ {
			if err := a.Write(&Message{Data: []byte("x"), Remote: b.LocalAddr(), ECN: ecn}); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, b, 1); got[0].ECN != ecn {
				t.Errorf("%s to %s: mark %d, want %d", addrs[0], addrs[1], got[0].ECN, ecn)
			}
		}
	}
}

// TestHopLimit checks that packets and trains are sent with the hop limit of the message,
// on sockets of both IP versions, and that messages with different hop limits are not
// joined into one train.
func TestHopLimit(t *testing.T) {
	for _, addrs := range [][2]string{
		{"127.0.0.1:0", "127.0.0.1:0"},
		{"[::1]:0", "[::1]:0"},
		{"[::]:0", "127.0.0.1:0"}, // a dual-stack socket sends IPv4,
		{"127.0.0.1:0", "[::]:0"}, // and receives it
		{"[::1]:0", "[::]:0"},
	} {
		a, b := listen(t, "udp", addrs[0], nil), listen(t, "udp", addrs[1], nil)
		ip := a.LocalAddr().Addr()
		if ip.IsUnspecified() {
			ip = b.LocalAddr().Addr()
		}
		to := netip.AddrPortFrom(ip, b.LocalAddr().Port())
		sent := []Message{
			{Data: pattern(3 * 1200), SegmentSize: 1200, Remote: to, HopLimit: 7, ECN: 1},
			{Data: pattern(3 * 1200), SegmentSize: 1200, Remote: to, HopLimit: 6, ECN: 1},
			{Data: pattern(10), Remote: to, HopLimit: 1},
			{Data: pattern(10), Remote: to, HopLimit: 255, Local: ip},
		}
		writeInOrder(t, a, sent)
		var got []byte
		for _, m := range receive(t, b, 8) {
			got = append(got, slices.Repeat([]byte{m.HopLimit}, m.Count())...)
		}
		if want := []byte{7, 7, 7, 6, 6, 6, 1, 255}; !bytes.Equal(got, want) {
			t.Errorf("%s to %s: hop limits %d, want %d", addrs[0], addrs[1], got, want)
		}
		if err := a.Write(&Message{Data: []byte("x"), Remote: to}); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, b, 1)[0].HopLimit; got < 32 {
			t.Errorf("%s to %s: %d hops by default", addrs[0], addrs[1], got)
		}
	}
}

// TestAnswersFromSameAddress checks that a host with several addresses answers from the
// address that a packet came to.
func TestAnswersFromSameAddress(t *testing.T) {
	server := listen(t, "udp", "0.0.0.0:0", nil)
	client := listen(t, "udp", "127.0.0.1:0", nil)
	for _, addr := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), server.LocalAddr().Port())
		if err := client.Write(&Message{Data: []byte("?"), Remote: at}); err != nil {
			t.Fatal(err)
		}
		asked := receive(t, server, 1)[0]
		if asked.Local != at.Addr() {
			t.Errorf("asked at %v, want %v", asked.Local, at.Addr())
		}
		if err := server.Write(&Message{Data: []byte("!"), Remote: asked.Remote, Local: asked.Local}); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, client, 1)[0]; got.Remote != at {
			t.Errorf("answer from %v, want %v", got.Remote, at)
		}
	}
}

// TestDualStack checks that one socket serves both IP versions, and that IPv4 addresses are
// not mapped into IPv6.
func TestDualStack(t *testing.T) {
	server := listen(t, "udp", "[::]:0", nil)
	port := server.LocalAddr().Port()
	for _, addr := range []string{"127.0.0.1", "::1"} {
		ip := netip.MustParseAddr(addr)
		client := listen(t, "udp", netip.AddrPortFrom(ip, 0).String(), nil)
		if err := client.Write(&Message{Data: []byte("?"), Remote: netip.AddrPortFrom(ip, port)}); err != nil {
			t.Fatal(err)
		}
		asked := receive(t, server, 1)[0]
		if asked.Remote != client.LocalAddr() || asked.Local != ip {
			t.Errorf("from %v to %v, want %v to %v", asked.Remote, asked.Local, client.LocalAddr(), ip)
		}
		answer := asked
		answer.Data = []byte("!")
		if err := server.Write(&answer); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, client, 1)[0]; got.Remote != netip.AddrPortFrom(ip, port) {
			t.Errorf("answer from %v", got.Remote)
		}
	}
}

// TestShards checks that sockets share a port, and receive all packets together.
func TestShards(t *testing.T) {
	shards, err := Listen(t.Context(), "udp", "127.0.0.1:0", 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan int)
	for _, s := range shards {
		defer s.Close()
		if s.LocalAddr() != shards[0].LocalAddr() {
			t.Errorf("shards at %v and %v", shards[0].LocalAddr(), s.LocalAddr())
		}
		go func() {
			ms := make([]Message, 8)
			for {
				n, err := s.ReadBatch(ms)
				if err != nil {
					return
				}
				received <- n
			}
		}()
	}
	const flows = 64
	for range flows {
		client := listen(t, "udp", "127.0.0.1:0", nil)
		if err := client.Write(&Message{Data: []byte("x"), Remote: shards[0].LocalAddr()}); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n < flows; n += <-received {
	}
	used := 0
	for _, s := range shards {
		if s.Stats().RxPackets > 0 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d of 4 shards got the packets of %d flows", used, flows)
	}
}

// TestShardsRefusePortInUse checks that a second server cannot use the same port, because
// it would get some of the flows.
func TestShardsRefusePortInUse(t *testing.T) {
	first, err := Listen(t.Context(), "udp", "127.0.0.1:0", 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range first {
		defer s.Close()
	}
	second, err := Listen(t.Context(), "udp", first[0].LocalAddr().String(), 2, nil)
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%d sockets, %v, want %v", len(second), err, unix.EADDRINUSE)
	}
}

// TestOverflowIsCounted checks that packets that the kernel has dropped are counted when
// the next packet is read.
func TestOverflowIsCounted(t *testing.T) {
	a := listen(t, "udp", "127.0.0.1:0", nil)
	b := listen(t, "udp", "127.0.0.1:0", &Config{ReadBuffer: 4096, DisableGRO: true})
	sent := uint64(0)
	write := func(n int) {
		for range n {
			sent++
			if err := a.Write(&Message{Data: pattern(1200), Remote: b.LocalAddr()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(200)
	// Some packets may still be on their way when the socket is drained.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		drain(t, b)
		s := b.Stats()
		if s.RxOverflow > 0 && s.RxPackets+s.RxOverflow == sent {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d read and %d dropped of %d", s.RxPackets, s.RxOverflow, sent)
		}
		write(1)
	}
}

// drain reads the messages that have arrived.
func drain(t *testing.T, s *Socket) {
	t.Helper()
	ms := make([]Message, 64)
	raw, err := s.Conn().(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for {
		var queued int
		if err := raw.Control(func(fd uintptr) { queued, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		if queued == 0 {
			return
		}
		if _, err := s.ReadBatch(ms); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedTrain checks that no more trains are sent after EIO, which means that the
// network device cannot compute checksums (udp(7)).
func TestRefusedTrain(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", &Config{DisableGRO: true})
	engine := a.engine.(*kernelEngine)
	sender := takeSender(engine, engine.raw, true, maxBatch)
	for _, errno := range []unix.Errno{unix.EINVAL, unix.EIO} {
		train := Message{Data: pattern(3 * 1000), SegmentSize: 1000, Remote: b.LocalAddr()}
		sender.add(&train)
		sender.seal(0)
		if err := sender.refused(0, errno); err != nil {
			t.Fatal(err)
		}
		sender.reset()
		if got := receive(t, b, 3); len(got) != 3 {
			t.Errorf("%d messages, want 3", len(got))
		}
		if a.GSO() != (errno != unix.EIO) {
			t.Errorf("after %v, GSO is %v", errno, a.GSO())
		}
	}
	if s := a.Stats(); s.GSOFallbacks != 2 || s.TxErrors != 0 {
		t.Errorf("%d fallbacks, %d errors, want 2 and 0", s.GSOFallbacks, s.TxErrors)
	}
	sender.add(&Message{Data: []byte("x"), Remote: b.LocalAddr()})
	sender.seal(0)
	err := sender.refused(0, unix.EPERM)
	if err == nil || !strings.Contains(err.Error(), "not permitted") || a.Stats().TxErrors != 1 {
		t.Errorf("refused datagram: %v, %d errors", err, a.Stats().TxErrors)
	}
}

// TestSocketDoesNotAllocate checks that neither reads nor writes allocate.
func TestSocketDoesNotAllocate(t *testing.T) {
	if nettest.RaceDetector {
		t.Skip("with the race detector, sync.Pool forgets a quarter of what it is given")
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := listen(t, "udp", addr, nil), listen(t, "udp", addr, nil)
		b.SetReadDeadline(time.Time{})
		out := []Message{
			{Data: pattern(12_000), SegmentSize: 1200, Remote: b.LocalAddr(), ECN: 1},
			{Data: pattern(100), Remote: b.LocalAddr()},
		}
		in := make([]Message, 64)
		if n := testing.AllocsPerRun(50, func() {
			if err := a.WriteBatch(out); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < 11; {
				got, err := b.ReadBatch(in)
				if err != nil {
					t.Fatal(err)
				}
				for i := range in[:got] {
					n += in[i].Count()
				}
			}
		}); n >= 1 {
			t.Errorf("%s: %v allocations", addr, n)
		}
	}
}

// TestFlowsKeepTheirOrder checks that each address gets its own datagrams, complete and in
// order, when messages are joined into trains.
func TestFlowsKeepTheirOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	from := listen(t, "udp", "127.0.0.1:0", nil)
	var to []*Socket
	for range 5 {
		to = append(to, listen(t, "udp", "127.0.0.1:0", nil))
	}
	sizes := []int{1, 100, 100, 100, 101, 1200, 1200, 1200, 1452}
	for range 30 {
		want := make([][][]byte, len(to))
		var batch []Message
		for range 1 + rng.IntN(2*maxBatch) {
			size := sizes[rng.IntN(len(sizes))]
			data := make([]byte, size*(1+rng.IntN(3))-rng.IntN(size))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			i := rng.IntN(len(to))
			m := Message{Data: data, SegmentSize: size, Remote: to[i].LocalAddr(), ECN: byte(rng.IntN(2))}
			if m.Count() == 1 {
				m.SegmentSize = 0
			}
			want[i] = slices.AppendSeq(want[i], m.Segments())
			batch = append(batch, m)
		}
		writeInOrder(t, from, batch)
		for i, s := range to {
			got := datagrams(receive(t, s, len(want[i])))
			if !slices.EqualFunc(got, want[i], bytes.Equal) {
				t.Fatalf("address %d has not got exactly its datagrams", i)
			}
		}
	}
}

// TestInterleavedFlowsLeaveInTrains checks that interleaved packets of several flows are
// sent as one message per flow.
func TestInterleavedFlowsLeaveInTrains(t *testing.T) {
	from := listen(t, "udp", "127.0.0.1:0", nil)
	to := []*Socket{listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)}
	if !from.GSO() || !to[0].GRO() {
		nettest.Missing(t, "this kernel has no UDP_SEGMENT or UDP_GRO")
	}
	var batch []Message
	for i := range 20 {
		batch = append(batch, Message{Data: pattern(1200), Remote: to[i%2].LocalAddr()})
	}
	if err := from.WriteBatch(batch); err != nil {
		t.Fatal(err)
	}
	for _, s := range to {
		if got := receive(t, s, 10); len(got) != 1 {
			t.Errorf("%d messages, want 1", len(got))
		}
	}
	if s := from.Stats(); s.TxPackets != 20 || s.TxBytes != 20*1200 {
		t.Errorf("counts %d packets, %d bytes", s.TxPackets, s.TxBytes)
	}
}

// TestECNAfterOverflow checks that the ECN mark is received together with all other control
// messages on a socket for both IP versions.
func TestECNAfterOverflow(t *testing.T) {
	a := listen(t, "udp", "127.0.0.1:0", nil)
	b := listen(t, "udp", "[::]:0", &Config{ReadBuffer: 4096})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.LocalAddr().Port())
	train := []Message{{Data: pattern(3 * 1200), SegmentSize: 1200, Remote: to, ECN: 2}}
	for deadline := time.Now().Add(10 * time.Second); b.Stats().RxOverflow == 0; drain(t, b) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was dropped")
		}
		for range 200 {
			if err := a.WriteBatch(train); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.WriteBatch(train); err != nil {
		t.Fatal(err)
	}
	got := receive(t, b, 3)
	if got[0].ECN != 2 || got[0].Local != to.Addr() {
		t.Errorf("mark %d, reached at %v", got[0].ECN, got[0].Local)
	}
}

// TestSmallSenders checks that a write of few messages holds little memory, and that senders go back to
// where they are from.
func TestSmallSenders(t *testing.T) {
	engine := listen(t, "udp", "127.0.0.1:0", nil).engine.(*kernelEngine)
	for messages, room := range map[int]int{1: fewMessages, fewMessages: fewMessages, fewMessages + 1: maxBatch} {
		for range 2 {
			s := takeSender(engine, engine.raw, true, messages)
			if len(s.hdrs) != room {
				t.Errorf("%d messages: room for %d, want %d", messages, len(s.hdrs), room)
			}
			s.release()
		}
	}
	each := unsafe.Sizeof(mmsghdr{}) + maxGather*unsafe.Sizeof(unix.Iovec{}) + unsafe.Sizeof(sockaddr{}) + unsafe.Sizeof(control{}) + unsafe.Sizeof(train{})
	if size := fewMessages * each; size > 16<<10 {
		t.Errorf("a small sender has %d bytes", size)
	} else {
		t.Logf("%d bytes", size)
	}
}
