package amplify

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

const idLen = 12

var (
	client   = netip.MustParseAddrPort("198.51.100.1:1000")
	victim   = netip.MustParseAddrPort("203.0.113.9:53")
	serverID = bytes.Repeat([]byte{0x5e}, idLen)
	drawn    = bytes.Repeat([]byte{0xd0}, 8)
)

func long(t *testing.T, dst, src []byte, size int) []byte {
	t.Helper()
	b, err := wiretest.AppendLong(nil, &wire.Header{Type: wire.Handshake, First: 0xe0, Version: wire.Version1, DstID: dst, SrcID: src}, make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	return b[:size]
}

func short(id []byte, size int) []byte {
	return append(append([]byte{0x40}, id...), make([]byte, size-1-len(id))...)
}

// sent returns how many bytes of n messages may be sent.
func sent(l *Limit, to netip.AddrPort, b []byte, n int) (bytes int) {
	for range n {
		if l.MaySend(to, b) {
			bytes += len(b)
		}
	}
	return bytes
}

// TestThreeTimes checks that three times as many bytes may be sent as have come from an
// address.
func TestThreeTimes(t *testing.T) {
	for name, conf := range map[string]Config{"server": {IDLen: idLen}, "both": {IDLen: idLen, Dials: true}, "guess": {IDLen: idLen, Dials: true, Guess: true}} {
		t.Run(name, func(t *testing.T) {
			l := New(conf)
			l.Received(victim, short(serverID, 33), 33)
			if got := sent(l, victim, short(drawn, 1200), 10); got > 3*33 {
				t.Errorf("%d bytes were sent for 33 received", got)
			}
			l.Received(victim, short(serverID, 400), 400)
			if got := sent(l, victim, short(drawn, 1200), 10); got != 1200 {
				t.Errorf("%d bytes were sent for 433 received, want 1200", got)
			}
			if l.Dropped() != 19 {
				t.Errorf("%d are counted as dropped, want 19", l.Dropped())
			}
		})
	}
}

// TestHandshakeIsBounded checks that the limit also holds for a server that takes a token
// as proof of an address.
func TestHandshakeIsBounded(t *testing.T) {
	for _, dials := range []bool{false, true} {
		l := New(Config{IDLen: idLen, Dials: dials})
		l.Received(victim, long(t, drawn, []byte("SCID8888"), 1200), 1200)
		if got := sent(l, victim, long(t, []byte("SCID8888"), serverID, 1200), 10); got != 3600 {
			t.Errorf("%d bytes were sent for 1200 received, want 3600", got)
		}
	}
}

// newApart returns a limit whose filter of chosen IDs tells drawn from serverID. One in 256 does not, and takes
// serverID for chosen: that is no echo.
func newApart(conf Config) *Limit {
	for {
		l := New(conf)
		var a account
		a.choose(l.idTag(drawn))
		if word, bit := chosenBit(l.idTag(serverID)); a.chosen[word]&bit == 0 {
			return l
		}
	}
}

// TestEchoValidates checks that an address is validated when it sends a connection ID that
// was sent to it, but not one that was sent to another address.
func TestEchoValidates(t *testing.T) {
	l := newApart(Config{IDLen: idLen})
	l.Received(client, long(t, drawn, nil, 1200), 1200)
	sent(l, client, long(t, nil, serverID, 1200), 1)
	l.Received(victim, long(t, serverID, nil, 100), 100)
	if l.MaySend(victim, short(drawn, 1200)) {
		t.Error("an ID that was sent to another address validates an address")
	}
	l.Received(client, short(serverID, 33), 33)
	if got := sent(l, client, short(drawn, 1200), 100); got != 120000 {
		t.Errorf("%d bytes were sent to a validated address, want 120000", got)
	}
}

// TestOwnIDIsNoEcho checks that an ID that a client has chosen itself does not validate its
// address, although refusals contain it.
func TestOwnIDIsNoEcho(t *testing.T) {
	l := New(Config{IDLen: idLen})
	for i := range byte(20) {
		l.Received(victim, long(t, bytes.Repeat([]byte{i}, idLen), nil, 1200), 1200)
	}
	for i := range byte(20) {
		id := bytes.Repeat([]byte{i}, idLen)
		sent(l, victim, long(t, nil, id, 100), 1)
		l.Received(victim, short(id, 33), 33)
	}
	if got := sent(l, victim, short(drawn, 1200), 1000); got > 3*20*(1200+33) {
		t.Errorf("%d bytes have been sent for %d", got, 20*1233)
	}
}

// TestDialing checks that the Initials of an endpoint that dials are not limited.
func TestDialing(t *testing.T) {
	l := New(Config{IDLen: idLen, Dials: true})
	if got := sent(l, client, long(t, drawn, serverID, 1200), 10); got != 12000 {
		t.Errorf("%d bytes of our own Initials were sent, want 12000", got)
	}
	l.Received(client, long(t, serverID, drawn, 1200), 1200)
	if got := sent(l, client, short(drawn, 1200), 100); got != 120000 {
		t.Errorf("%d bytes were sent to an address that we have dialed, want 120000", got)
	}
	if New(Config{IDLen: idLen}).MaySend(client, long(t, drawn, serverID, 1200)) {
		t.Error("a server that does not dial sends to an address from which nothing came")
	}
}

// moving is a connection that migrates.
type moving struct {
	mu sync.Mutex
	at netip.AddrPort
}

func (m *moving) RemoteAddr() net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return net.UDPAddrFromAddrPort(m.at)
}

func (m *moving) move(to netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = to
}

// TestConnectionMoves checks that an address is validated as long as a connection is there.
func TestConnectionMoves(t *testing.T) {
	l := New(Config{IDLen: idLen, Guess: true})
	p, conn := l.Enter(client), &moving{at: client}
	if l.MaySend(client, short(drawn, 1200)) {
		t.Error("an address is validated by a handshake that has just begun")
	}
	p.Follow(conn)
	if !l.MaySend(client, short(drawn, 60000)) {
		t.Error("the address of a connection is limited")
	}
	l.Received(victim, short(serverID, 33), 33)
	if l.MaySend(victim, short(drawn, 1280)) {
		t.Error("an address is validated before a connection has migrated to it")
	}
	l.followed.next = l.followed.next.Add(-1e9)
	conn.move(victim)
	if !l.MaySend(victim, short(drawn, 1280)) {
		t.Error("the address of a connection that has migrated is limited")
	}
	l.Received(client, short(serverID, 33), 33)
	if l.MaySend(client, short(drawn, 1200)) {
		t.Error("an address is still validated after its connection has left it")
	}
	p.Leave()
	p.Leave()
	l.Received(victim, short(serverID, 33), 33)
	if l.MaySend(victim, short(drawn, 1200)) {
		t.Error("an address is still validated after its connection has ended")
	}
	for i := range l.shards {
		if n := len(l.shards[i].pinned); n > 0 {
			t.Errorf("%d accounts are left", n)
		}
	}
}

// TestGuess checks that an address is validated when QUIC sends a packet there that is
// neither a probe nor a reset, if connections are not followed.
func TestGuess(t *testing.T) {
	l := New(Config{IDLen: idLen, Guess: true})
	l.Received(client, short(serverID, 33), 33)
	for _, size := range []int{1200, 42} {
		l.MaySend(client, short(drawn, size))
	}
	if l.MaySend(client, short(drawn, 1200)) {
		t.Error("a path probe validates an address")
	}
	if !l.MaySend(client, short(drawn, 1252)) || !l.MaySend(client, short(drawn, 1200)) {
		t.Error("the address of a connection that has migrated is limited")
	}
}

// TestMemoryIsBounded checks that the memory is bounded, and that the accounts of
// connections are kept, when packets come from very many addresses.
func TestMemoryIsBounded(t *testing.T) {
	l := New(Config{IDLen: idLen})
	p := l.Enter(client)
	defer p.Leave()
	l.Received(client, long(t, drawn, nil, 1200), 1200)
	b := short(serverID, 33)
	for i := range 200_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		l.Received(netip.AddrPortFrom(addr, 1), b, len(b))
	}
	if !l.MaySend(client, long(t, nil, serverID, 1200)) {
		t.Error("a handshake is limited because of other addresses' packets")
	}
	for i := range l.shards {
		if n := len(l.shards[i].table); n > sets*setEntries {
			t.Errorf("a shard has %d accounts", n)
		}
	}
}

func TestLimitDoesNotAllocate(t *testing.T) {
	l := New(Config{IDLen: idLen})
	in, out := short(serverID, 33), short(drawn, 1200)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		from := netip.AddrPortFrom(client.Addr(), uint16(i%50))
		i++
		l.Received(from, in, len(in))
		l.MaySend(from, out)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkValidated(b *testing.B) {
	l := New(Config{IDLen: idLen})
	l.Enter(client).Follow(&moving{at: client})
	in, out := short(serverID, 33), short(drawn, 1200)
	b.ReportAllocs()
	for b.Loop() {
		l.Received(client, in, len(in))
		l.MaySend(client, out)
	}
}
