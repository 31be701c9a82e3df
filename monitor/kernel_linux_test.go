package monitor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/xdp"
)

// testConn is a connection whose packets the kernel soon need not report.
type testConn struct {
	client, server string
	id             []byte
}

// testConnOf returns the n-th connection.
func testConnOf(n uint32) testConn {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return testConn{netip.AddrPortFrom(a, 50000).String(), serverAddr, binary.BigEndian.AppendUint64(nil, uint64(n)+1)}
}

// begin returns the client's Initial.
func (d testConn) begin(tb testing.TB) sent {
	return at(0, d.client, d.server, initialOf(tb, d.id, d.id, 0, cryptoFrame(0, helloOf("kernel.example"))))
}

// short returns a packet of the server with a short header.
func (d testConn) short(length int) sent {
	b := append(append([]byte{0x40}, d.id...), make([]byte, length-9)...)
	return at(0, d.server, d.client, b)
}

// all runs packets and reads what is reported of each.
func (o *offloaded) all(packets ...sent) {
	o.Helper()
	for _, s := range packets {
		o.run(ethernet(s))
		o.read()
	}
}

// fromServer returns what the server of a client's connection has sent.
func (o *offloaded) fromServer(client string) (sum Traffic) {
	o.Helper()
	for c := range o.tracker.Connections() {
		if c.Paths[0].Client.String() == client {
			return c.FromServer
		}
	}
	o.Fatalf("no connection of %s", client)
	return sum
}

// TestRingOverflow checks that packets that the ring has no room for are counted,
// also for their connection, and that later ones are reported again.
func TestRingOverflow(t *testing.T) {
	o := newOffloaded(t, programHooks[0], 1<<14, nil)
	d := testConnOf(0)
	o.all(d.begin(t), d.short(100), d.short(100), d.short(100))
	const others = 3000
	for n := range uint32(others) {
		o.run(ethernet(testConnOf(n + 1).begin(t)))
	}
	o.run(ethernet(d.short(200)))
	lost := o.stats()["monitor_ring_full"]
	if lost == 0 || o.source.Dropped() != lost {
		t.Fatalf("%d of %d were lost, the source has %d; they must be equal and not 0", lost, others, o.source.Dropped())
	}
	if got, want := o.fromServer(d.client), (Traffic{Packets: 4, Bytes: 500}); got != want {
		t.Errorf("got %v of the connection that was known, want %v", got, want)
	}
	o.read()
	if n := len(connections(o.tracker)); n != others+1-int(lost) {
		t.Errorf("got %d connections, want %d without %d that were lost", n, others+1, lost)
	}
	late := testConnOf(others) // whose Initial was lost
	o.all(late.begin(t))
	for c := range o.tracker.Connections() {
		if c.Paths[0].Client.String() == late.client && c.FromClient.Packets == 2 {
			return
		}
	}
	t.Error("the connection whose Initial was lost is not there with both")
}

// TestMapOverflow checks that flows that were evicted are counted again, and that
// what was read before stays.
func TestMapOverflow(t *testing.T) {
	const asked = 128
	limit := asked + 128*ebpf.MustPossibleCPU() // each CPU keeps free entries
	flows := 3 * limit
	o := newOffloaded(t, programHooks[0], asked, &Config{MaxConnections: flows + 1})
	first := testConnOf(0)
	o.all(first.begin(t), first.short(100), first.short(100), first.short(100))
	if got := o.fromServer(first.client).Packets; got != 3 {
		t.Errorf("got %d packets of the first, want 3", got)
	}
	for n := range uint32(flows - 1) {
		o.all(testConnOf(n+1).begin(t), testConnOf(n+1).short(100), testConnOf(n+1).short(100))
	}
	o.all(first.short(100), first.short(100), first.short(100))
	if n := len(connections(o.tracker)); n != flows {
		t.Errorf("got %d connections, want %d", n, flows)
	}
	if got := o.fromServer(first.client).Packets; got != 6 {
		t.Errorf("got %d packets of the first, want 6", got)
	}
	if n := o.tracker.Stats().FlowsEvicted; n < uint64(flows/2) {
		t.Errorf("got %d flows that were evicted, want most of %d", n, flows)
	}
	if n := len(o.tracker.offload.flows); n > limit {
		t.Errorf("the tracker keeps %d flows, want at most those in the kernel", n)
	}
}

// TestManyFlows checks that every packet of a hundred thousand flows is counted.
func TestManyFlows(t *testing.T) {
	flows, more := 100_000, 2
	if nettest.RaceDetector { // an Initial takes ten times as long to make
		flows = 10_000
	}
	o := newOffloaded(t, programHooks[0], 2*flows, &Config{MaxConnections: flows + 1})
	for n := range uint32(flows) {
		o.all(testConnOf(n).begin(t), testConnOf(n).short(100))
	}
	for n := range uint32(flows) {
		for range more {
			o.run(ethernet(testConnOf(n).short(100)))
		}
	}
	reported := o.stats()["monitor_reported"]
	if reported != uint64(2*flows) {
		t.Errorf("%d packets were reported, want the first two of each of %d flows", reported, flows)
	}
	want, n := (Traffic{Packets: uint64(1 + more), Bytes: uint64(100 * (1 + more))}), 0
	for c := range o.tracker.Connections() {
		if n++; c.FromServer != want || c.FromClient.Packets != 1 {
			t.Fatalf("got %v and %v of %v, want %v from the server", c.FromClient, c.FromServer, c.Paths[0].Client, want)
		}
	}
	if n != flows {
		t.Errorf("got %d connections, want %d", n, flows)
	}
}

// TestOffloadedSegments checks that packets that the system has put together are
// counted as they were sent, whether the hook gives the size or not.
func TestOffloadedSegments(t *testing.T) {
	d := testConnOf(0)
	train := d.short(1200)
	for range 9 {
		train.data = append(train.data, d.short(1200).data...)
	}
	train.data = append(train.data, d.short(500).data...)
	t.Run("XDP", func(t *testing.T) {
		o := newOffloaded(t, programHooks[0], 100, nil)
		o.all(d.begin(t), d.short(100), train, train, train)
		if got, want := o.fromServer(d.client), (Traffic{Packets: 34, Bytes: 3*12500 + 100}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if n := o.stats()["monitor_reported"]; n > 3 {
			t.Errorf("%d packets were reported, want 3: one to see the size of the segments", n)
		}
	})
	t.Run("TCX", func(t *testing.T) {
		needsTCX(t)
		sized := hook{"TCX", func(p *xdp.Program, b []byte) (datapath.Verdict, []byte, error) {
			return p.Datapath().TestEgress(1, b, map[bool]int{true: 1200}[len(b) > 2000])
		}}
		o := newOffloaded(t, sized, 100, nil)
		train.data = train.data[:2900] // the limit of a test run
		o.all(d.begin(t), train, train, train)
		if got, want := o.fromServer(d.client), (Traffic{Packets: 9, Bytes: 3 * 2900}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if n := o.stats()["monitor_reported"]; n != 2 {
			t.Errorf("%d packets were reported, want 2", n)
		}
	})
}

// TestOddFrames checks VLAN tags, IP options and extension headers, and that most
// fragments are skipped and counted.
func TestOddFrames(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	build := func(s sent, f packet.Frame) []byte {
		f.Src, f.Dst, f.TTL, f.Payload = s.from, s.to, 64, s.data
		return f.Build(mac, mac)
	}
	options := func(s sent) []byte { return build(s, packet.Frame{Options: true}) }
	extension := func(units byte) func(s sent) []byte { // destination options before UDP
		return func(s sent) []byte {
			b := build(toIPv6([]sent{s})[0], packet.Frame{Next: 60})
			padding := 8*units - 4
			binary.BigEndian.PutUint16(b[18:], binary.BigEndian.Uint16(b[18:])+uint16(8*units))
			options := append([]byte{17, units - 1, 1, padding}, make([]byte, padding)...)
			return append(append(b[:54:54], options...), b[54:]...)
		}
	}
	twice := func(s sent) []byte { // 802.1ad around 802.1Q
		b := build(s, packet.Frame{VLAN: true})
		return append(b[:12:12], append([]byte{0x88, 0xa8, 0, 7}, b[12:]...)...)
	}
	for name, make := range map[string]func(sent) []byte{
		"tag":        func(s sent) []byte { return build(s, packet.Frame{VLAN: true}) },
		"two tags":   twice,
		"options":    options,
		"extension":  extension(1),
		"far behind": extension(13),
		"pad":        func(s sent) []byte { return build(s, packet.Frame{Pad: 9}) },
	} {
		for _, h := range hooksHere(t) {
			t.Run(name+"/"+h.name, func(t *testing.T) {
				o := newOffloaded(t, h, 100, nil)
				d := testConnOf(0)
				for _, s := range []sent{d.begin(t), d.short(100), d.short(100), d.short(100)} {
					o.run(make(s))
					o.read()
				}
				c := only(t, o.tracker)
				if c.FromServer != (Traffic{Packets: 3, Bytes: 300}) || c.ServerName != "kernel.example" {
					t.Errorf("got %v of %q", c.FromServer, c.ServerName)
				}
				if n := o.stats()["monitor_reported"]; n != 2 {
					t.Errorf("%d packets were reported, want 2", n)
				}
			})
		}
	}
	o := newOffloaded(t, programHooks[0], 100, nil)
	const fragments = 500
	for range fragments {
		o.run(build(testConnOf(0).short(100), packet.Frame{Flags: 100}))
	}
	stats := o.stats()
	if n := stats["monitor_reported"] + stats["monitor_skipped"]; n != fragments || stats["monitor_skipped"] == 0 {
		t.Errorf("of %d fragments some were to be reported and most to be skipped: %v", fragments, stats)
	}
}

// TestFloodOfIDs checks that few packets are reported of an attacker who knows the
// endpoints of a connection.
func TestFloodOfIDs(t *testing.T) {
	o := newOffloaded(t, programHooks[0], 100, nil)
	d := testConnOf(0)
	o.all(d.begin(t), d.short(100), d.short(100))
	before, began := o.stats()["monitor_reported"], time.Now()
	for n := range 5000 {
		attacker := d
		attacker.id = binary.BigEndian.AppendUint64(nil, uint64(n)<<32)
		o.all(attacker.short(60))
	}
	reported, most := o.stats()["monitor_reported"]-before, 64+20*uint64(time.Since(began)/time.Second+1)
	if reported > most {
		t.Errorf("%d packets of a flood were reported, want %d at most", reported, most)
	}
	o.all(d.short(100))
	if c := only(t, o.tracker); len(c.ClientIDs) == 0 || c.ClientIDs[0] != idOf(d.id).String() {
		t.Errorf("got IDs %v, want the first to stay", c.ClientIDs)
	}
}

// TestLastReportedID checks that the program keeps the ID that it has reported
// last, also before the length of IDs is known.
func TestLastReportedID(t *testing.T) {
	for _, h := range hooksHere(t) {
		t.Run(h.name, func(t *testing.T) {
			o := newOffloaded(t, h, 100, nil)
			one, other := testConnOf(0), testConnOf(0)
			other.id = []byte("another!")
			for _, d := range []testConn{one, one, other} {
				o.run(ethernet(d.short(100)))
			}
			reported := 0
			for _, f := range o.source.flows.All() {
				for _, l := range f.Directions {
					if bytes.HasPrefix(l.Reported[:], other.id) {
						reported++
					}
				}
			}
			if reported != 1 {
				t.Errorf("%d all say that %q was reported last, want 1", reported, other.id)
			}
		})
	}
}

// TestKernelSource checks the errors of Kernel, and that Close ends Read.
func TestKernelSource(t *testing.T) {
	without := xdptest.Load(t, &xdp.Config{Sessions: 1})
	defer without.Close()
	if _, err := Kernel(without); !errors.Is(err, xdp.ErrConfig) {
		t.Errorf("got %v for a program without flows, want %v", err, xdp.ErrConfig)
	}
	program := loadFlows(t, 100)
	source, err := Kernel(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Kernel(program); !errors.Is(err, xdp.ErrBusy) {
		t.Errorf("got %v for a second source, want %v", err, xdp.ErrBusy)
	}
	ended := make(chan error)
	go func() { ended <- source.Read(new(Packet)) }()
	time.AfterFunc(10*time.Millisecond, func() { source.Close() })
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v from Read after Close, want %v", err, net.ErrClosed)
	}
	if err := source.Close(); err != nil {
		t.Error(err)
	}
	again, err := Kernel(program)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	program.Close()
	if err := again.Read(new(Packet)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v from Read after the program's Close, want %v", err, net.ErrClosed)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Kernel(program); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v for a closed program, want %v", err, net.ErrClosed)
	}
}

// TestSecondSource checks that the next source of a program does not use the rules
// of the first one, and gets what came after the first one's last read.
func TestSecondSource(t *testing.T) {
	for _, h := range hooksHere(t) {
		t.Run(h.name, func(t *testing.T) {
			first := newOffloaded(t, h, 100, nil)
			known, late := testConnOf(0), testConnOf(1)
			other := at(0, "192.0.2.1:1", serverAddr, make([]byte, 60))
			first.all(known.begin(t), known.short(100), known.short(100), other)
			first.run(ethernet(late.begin(t))) // and is not read
			if err := first.source.Close(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				first.run(ethernet(late.short(100)))
			}
			again := newOffloadedBy(t, first.program, h, nil)
			again.read()
			c := only(t, again.tracker)
			if c.ServerName != "kernel.example" || c.FromServer != (Traffic{Packets: 3, Bytes: 300}) || c.FromClient.Packets != 1 {
				t.Errorf("got %v and %v of %q, want all that came meanwhile", c.FromClient, c.FromServer, c.ServerName)
			}
			before := again.stats()["monitor_reported"]
			again.all(known.short(100), known.short(100), other)
			if got := again.stats()["monitor_reported"] - before; got != 3 {
				t.Errorf("%d packets of flows that the first source knew were reported, want 3", got)
			}
			before = again.stats()["monitor_reported"]
			again.all(late.short(100), late.short(100), other)
			if got := again.fromServer(late.client); got != (Traffic{Packets: 5, Bytes: 500}) {
				t.Errorf("got %v, want five packets", got)
			}
			if got := again.stats()["monitor_reported"] - before; got != 0 {
				t.Errorf("%d packets were reported of what is known again", got)
			}
		})
	}
}

// FuzzParity checks that both hooks and a file give the same connections for any
// packets, and that all packets pass.
func FuzzParity(f *testing.F) {
	for _, script := range []string{
		"\x01\x40\x01\x40\x01\x60\x01\x40",                 // the server answers
		"\x01\x40\x11\x40\x11\x40\x03\xc0\x02\x40\x09\x00", // with other IDs
		"$0",
		"\x05\x40\x05\x40\x04\x40\x05\x40\x06\x80\x07\x00",
		// A packet on one path changes the rules of another path.
		"\a\xe0\x04s\r@", "\x1e\xfe\f@\x03\xfe\x04`", "\x14`\x1c\xfe\x06e\x02 \b\x80",
		// The ends change their IDs, and the values of the spin bit with them.
		"\x01\xfe\x04\x60\x01\x60\x04\x60\x01\x60\x04\x40\x14\x60\x11\x40\x04\x40\x01\x60\x14\x60\x11\x40\x14\x40\x11\x60\x04\x60\x24\x40",
		// Several connections have the same endpoints: an ID, or the latest packet,
		// decides.
		"\xd7\xfb\a\xfe\a`", "A\xd0\x04\xd0$\xfe$@", "\x13\xfe\x02\t\x02\xfe\x02\x80\x02\xfa",
		// A connection comes to endpoints that another protocol has used.
		"Q\xfeB\t\xd6@\x12 ", "\x07\x09\x07\x40\x04\x40\x07\x40\x0d\x40",
		"\x07\x09\x07\xfc\x07\x40",
		// Google's versions have no spin bit, and their segments cannot be split.
		"\x19\xfc\x06@", "\x19\xfc\xc6\xfa\xc6\xfa",
		// Segments: of the same size as before, and of several numbers of datagrams.
		"W\xfe\xc7\xfa\xd7\xfc", "\xc1\xfa\x81\xfa", "\x81\xfa\xd1\xfe\xd1 ",
		"\bzx\x03\xea\xd4\xef\xaf\xce\"㙽4\xa3\x14Ŗ\x9f\x04m\x9dŧ\xcb\xf5\xe6\xc7\bd\xd7#3@\xfb\xec\xb8\xf2?;\xa8E\xe3\xdc4r1\xaf\x98\b\xbd!\x8eh\xe9\xc0Fw", // a probe from endpoints whose packets only the kernel has counted
	} {
		f.Add([]byte(script))
	}
	program := loadFlows(f, 100)
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, h := range hooksHere(t) {
			parity(t, program, h, script)
		}
	})
}

// scriptOf returns the packets of a script: an Initial, and one packet for each two
// bytes. They choose the endpoints, the ID, the length and the first byte.
func scriptOf(tb testing.TB, script []byte) []sent {
	d := testConnOf(0)
	d.id = []byte("original") // unlike the zeros in packets, in which it is searched
	ends := []string{d.client, d.server, "10.0.0.9:50000", "10.0.0.0:50001"}
	all := []sent{d.begin(tb)}
	longs := map[netip.AddrPort]int{all[0].from: 1}
	for ; len(script) >= 2 && len(all) < 25; script = script[2:] {
		how, first := script[0], script[1]
		s := at(0, ends[how&3], ends[how>>2&3], nil)
		if s.from == s.to {
			continue
		}
		id := bytes.Clone(d.id)
		id[7] ^= how >> 4 & 3
		s.data = scripted(tb, id, 30+int(how>>6)*500, first)
		s.ecn = decap.ECN(first & 3)
		if _, google := wire.GoogleVersion(s.data); google || wire.IsLong(s.data[0]) {
			if longs[s.from]++; longs[s.from] > maxWhole {
				continue // Go would get only the beginning
			}
		}
		all = append(all, s)
	}
	return all
}

// scripted returns a datagram with an ID. Some first bytes stand for special
// datagrams.
func scripted(tb testing.TB, id []byte, length int, first byte) []byte {
	other := bytes.Clone(id)
	other[0] ^= first // the sender's ID
	long := func(first byte, version string, src []byte) []byte {
		b := append([]byte{first}, version...)
		b = append(append(b, byte(len(id))), id...)
		return append(append(b, byte(len(src))), src...)
	}
	var b []byte
	switch {
	case first == 0xff: // another connection
		return initialOf(tb, id, other, 0, cryptoFrame(0, helloOf("another.example")))
	case first == 0xfe: // a Handshake
		b = long(0xe0, "\x00\x00\x00\x01", other)
		length = max(length, len(b)+2+minNumbered)
		return append(binary.BigEndian.AppendUint16(b, 0x4000|uint16(length-len(b)-2)), make([]byte, length-len(b)-2)...)
	case first == 0xfd:
		b = append(long(0x80, "\x00\x00\x00\x00", id), "\x6b\x33\x43\xcf"...)
		return b
	case first == 0xfc:
		b = append(append([]byte{0x09}, id...), "Q043"...)
	case first == 0xfb:
		b = long(0xc0, "Q046", nil)
	case first == 0xfa: // several datagrams put together
		b = append(append([]byte{0x40}, id...), make([]byte, 600)...)
		return append(append(b, b...), b[:100+length/4]...)
	case wire.IsLong(first):
		b = long(first, "\x00\x00\x00\x01", nil)
	default:
		b = append([]byte{first}, id...)
	}
	return append(b, make([]byte, max(length-len(b), 0))...)
}

// parity runs a script by a hook and compares the result with that of a file. It
// repeats runs that took so long that tables were swept.
func parity(tb testing.TB, program *xdp.Program, h hook, script []byte) {
	tb.Helper()
	for !paritySoon(tb, program, h, scriptOf(tb, script)) {
	}
}

// paritySoon is parity once. It returns false if the run took too long.
func paritySoon(tb testing.TB, program *xdp.Program, h hook, all []sent) bool {
	tb.Helper()
	o := newOffloadedBy(tb, program, h, nil)
	defer o.source.Close()
	// All connections count as seen at the same time, so that the time that a packet
	// takes does not matter.
	o.tracker.index.slack = int64(time.Hour)
	before := o.stats()["monitor_limited"]
	for i := range all {
		all[i].at = o.now()
		o.all(all[i])
	}
	if o.now().Sub(o.opened) > time.Duration(sweepEvery)/2 {
		return false
	}
	if limited := o.stats()["monitor_limited"] - before; limited > 0 {
		tb.Errorf("%d packets of so few were not reported", limited)
	}
	o.same(all)
	return true
}

// TestLongHello checks that all datagrams of a long ClientHello are reported whole
// if Initials can be decrypted, and only the first ones if they do not.
func TestLongHello(t *testing.T) {
	const piece = 1000
	hello := helloOf(string(bytes.Repeat([]byte("long."), 2800)))
	binary.BigEndian.PutUint16(hello[2:], uint16(len(hello)-4))
	d := testConnOf(0)
	for _, h := range hooksHere(t) {
		t.Run(h.name, func(t *testing.T) {
			o := newOffloaded(t, h, 100, nil)
			n := 0
			for at := 0; at < len(hello); at += piece {
				s := d.begin(t)
				s.data = initialOf(t, d.id, d.id, byte(n), cryptoFrame(at, hello[at:min(at+piece, len(hello))]))
				o.all(s)
				n++
			}
			if n < 12 {
				t.Fatalf("%d datagrams, want many", n)
			}
			if c := only(t, o.tracker); c.ServerName != string(bytes.Repeat([]byte("long."), 2800)[:maxServerName]) {
				t.Errorf("after %d datagrams the name is not known", n)
			}
		})
	}
	o := newOffloaded(t, programHooks[0], 100, nil)
	for n := range 30 { // that no key decrypts
		s := d.begin(t)
		s.data[900] ^= byte(n + 1)
		o.run(ethernet(s))
	}
	var p Packet
	whole := 0
	for o.source.flows.Pending() {
		if err := o.source.Read(&p); err != nil {
			t.Fatal(err)
		}
		if len(p.Data) > 1000 {
			whole++
		}
		o.tracker.Packet(&p)
	}
	if whole != 1+maxWhole {
		t.Errorf("%d datagrams that do not open were reported whole, want the flow's first one and %d", whole, maxWhole)
	}
}

// TestNextHello checks that the server name is read of each connection of a client
// that uses one socket for one after another.
func TestNextHello(t *testing.T) {
	all := play(t, nil, false, func(s *scene) {
		for range maxShared {
			conn := s.dial(nil)
			s.exchange(conn, 100)
			conn.CloseWithError(0, "")
			synctest.Wait()
		}
	})
	for _, h := range hooksHere(t) {
		t.Run(h.name, func(t *testing.T) {
			o := newOffloaded(t, h, 100, nil)
			o.all(all...)
			named := 0
			for c := range o.tracker.Connections() {
				if c.ServerName == serverName {
					named++
				}
			}
			if named != maxShared {
				t.Errorf("%d connections have a name, want %d", named, maxShared)
			}
		})
	}
}

// TestIdleFlow checks that a connection whose packets are not reported is closed
// when it is idle, with all that was counted, and removed from the kernel.
func TestIdleFlow(t *testing.T) {
	o := newOffloaded(t, programHooks[0], 100, nil)
	d := testConnOf(0)
	o.all(d.begin(t), d.short(100))
	o.run(ethernet(d.short(100)))
	o.run(ethernet(d.short(100)))
	later := time.Now().Add(DefaultIdle - time.Minute)
	o.tracker.tick(later.UnixNano())
	only(t, o.tracker)
	o.run(ethernet(d.short(100)))
	o.tracker.take()
	o.tracker.tick(later.Add(2 * time.Minute).UnixNano())
	events := o.tracker.take()
	if len(events) != 1 || events[0].Kind != EventClosed || events[0].Reason != Idle {
		t.Fatalf("got %v, want EventClosed", events)
	}
	if got, want := events[0].Connection.FromServer, (Traffic{Packets: 4, Bytes: 400}); got != want {
		t.Errorf("got %v in the end, want %v", got, want)
	}
	for key := range o.source.flows.All() {
		t.Errorf("the kernel still has %v", key)
	}
	if n := len(o.tracker.offload.flows); n != 0 {
		t.Errorf("the tracker keeps %d flows, want none", n)
	}
}

// TestEventsWithoutPackets checks that events of idle connections are delivered
// while no packets are reported.
func TestEventsWithoutPackets(t *testing.T) {
	program := loadFlows(t, 100)
	source, err := Kernel(program)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, &Config{Idle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	events := m.Events(ctx)
	ended := make(chan error)
	go func() { ended <- m.Run(ctx) }()
	if _, _, err := programHooks[0].run(program, ethernet(testConnOf(0).begin(t))); err != nil {
		t.Error(err)
	}
	var last EventKind
	for e := range events {
		if last = e.Kind; last == EventClosed {
			break
		}
	}
	if last != EventClosed {
		t.Errorf("the last event is %v, want EventClosed", last)
	}
	cancel()
	<-ended
}

// TestPartialCounters checks counters that are read between the updates of a
// packet's count and of its bytes.
func TestPartialCounters(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, []sent{testConnOf(0).begin(t)})
	o, k := newOffload(nil, &tracker.index, &tracker.counters, &tracker.events), &kernelFlow{}
	one, two := [4]uint32{1}, [4]uint32{2}
	for e := range tracker.index.flows.all() {
		for _, n := range []datapath.Tally{{Packets: one}, {Packets: one, Bytes: 100}, {Packets: one, Bytes: 300}, {Packets: two, Bytes: 300}} {
			direction := datapath.Direction{Matched: n, Last: start}
			o.add(e.key, k, &datapath.Flow{Born: 1, Directions: [2]datapath.Direction{direction, direction}})
		}
	}
	if got, want := only(t, tracker).FromServer, (Traffic{Packets: 2, Bytes: 300}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestEvictedConnection checks that the event of an evicted connection has all that
// was counted.
func TestEvictedConnection(t *testing.T) {
	o := newOffloaded(t, programHooks[0], 100, &Config{MaxConnections: 1})
	d := testConnOf(0)
	o.all(d.begin(t), d.short(100))
	o.run(ethernet(d.short(100)))
	o.run(ethernet(d.short(100)))
	o.tracker.take()
	o.all(testConnOf(1).begin(t))
	for _, e := range o.tracker.take() {
		if e.Kind == EventClosed {
			if got, want := e.Connection.FromServer, (Traffic{Packets: 3, Bytes: 300}); got != want || e.Reason != Evicted {
				t.Errorf("got %v, %v; want %v, evicted", got, e.Reason, want)
			}
			return
		}
	}
	t.Error("nothing was closed")
}

// TestEvictedIgnoredFlow checks that an ignored flow is reported again once its
// candidate was evicted.
func TestEvictedIgnoredFlow(t *testing.T) {
	o := newOffloaded(t, programHooks[0], 100, &Config{MaxConnections: 1})
	other := func(from string) sent { return at(0, from, serverAddr, make([]byte, 60)) }
	reported := func(want uint64, from string) {
		t.Helper()
		before := o.stats()["monitor_reported"]
		o.all(other(from))
		if got := o.stats()["monitor_reported"] - before; got != want {
			t.Errorf("%d packets of %s were reported, want %d", got, from, want)
		}
	}
	reported(1, "192.0.2.1:1")
	reported(1, "192.0.2.1:1") // adds the flow
	reported(0, "192.0.2.1:1")
	reported(1, "192.0.2.1:2") // evicts the first one
	reported(1, "192.0.2.1:1")
}
