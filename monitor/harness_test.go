package monitor

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

const (
	clientAddr = "192.0.2.1:50000"
	serverAddr = "198.51.100.2:443"
	serverName = "monitored.example"
	protocol   = "quicway-monitor-test"
	oneWay     = 10 * time.Millisecond
)

// sent is a datagram and the time at which it crossed the network.
type sent struct {
	at       time.Time
	from, to netip.AddrPort
	data     []byte
	ecn      decap.ECN
}

// scene is a client and a server of quic-go on a network whose datagrams are kept.
type scene struct {
	t       *testing.T
	network *nettest.Network
	client  *nettest.Conn
	dialing *quic.Transport
	server  *quic.Transport
	tls     *tls.Config

	mu   sync.Mutex // guards the following
	sent []sent
}

// play runs a scene on a fake clock and returns the datagrams.
func play(t *testing.T, server *quic.Config, retry bool, act func(*scene)) []sent {
	t.Helper()
	var s *scene
	nettest.Bubble(t, func(t *testing.T) {
		network := nettest.New(1)
		network.Set(nettest.Conditions{Delay: oneWay})
		s = &scene{t: t, network: network, client: network.Listen(clientAddr)}
		network.Filter(func(p nettest.Packet) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sent = append(s.sent, sent{at: time.Now(), from: p.From, to: p.To, data: p.Data})
			return true
		})
		listening := network.Listen(serverAddr)
		s.server = &quic.Transport{Conn: listening, ConnectionIDLength: 8}
		if retry {
			s.server.VerifySourceAddress = func(net.Addr) bool { return true }
		}
		s.dialing = &quic.Transport{Conn: s.client, ConnectionIDLength: 4}
		s.tls = &tls.Config{
			ServerName: serverName, NextProtos: []string{protocol}, InsecureSkipVerify: true,
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		s.listen(server)
		act(s)
		s.dialing.Close()
		s.server.Close()
		s.client.Close()
		listening.Close()
		synctest.Wait()
	})
	return s.sent
}

// listen accepts connections and echoes their streams.
func (s *scene) listen(conf *quic.Config) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		s.t.Fatal(err)
	}
	if conf == nil {
		conf = &quic.Config{}
	}
	conf.Allow0RTT, conf.DisablePathMTUDiscovery = true, true
	listener, err := s.server.ListenEarly(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}, conf)
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				for {
					stream, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					io.Copy(stream, stream)
					stream.Close()
				}
			}()
		}
	}()
}

// dial opens a connection. conf may be nil.
func (s *scene) dial(conf *quic.Config) *quic.Conn {
	s.t.Helper()
	if conf == nil {
		conf = &quic.Config{}
	}
	conf.DisablePathMTUDiscovery = true
	conn, err := s.dialing.DialEarly(s.t.Context(), nettest.UDPAddr(netip.MustParseAddrPort(serverAddr)), s.tls, conf)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// exchange sends n bytes that the server echoes.
func (s *scene) exchange(conn *quic.Conn, n int) {
	s.t.Helper()
	stream, err := conn.OpenStreamSync(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		stream.Write(make([]byte, n))
		stream.Close()
	}()
	if got, err := io.ReadAll(stream); err != nil || len(got) != n {
		s.t.Fatalf("%d bytes of %d came back: %v", len(got), n, err)
	}
}

// frame puts a datagram into an IP packet.
func frame(s sent) *Packet {
	src, dst := s.from.Addr(), s.to.Addr()
	var b []byte
	if src.Is4() {
		b = make([]byte, 20)
		b[0], b[1], b[8], b[9] = 0x45, byte(s.ecn), 64, 17
		binary.BigEndian.PutUint16(b[2:], uint16(28+len(s.data)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
	} else {
		b = make([]byte, 40)
		b[0], b[1], b[6], b[7] = 0x60, byte(s.ecn)<<4, 17, 64
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(s.data)))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	b = binary.BigEndian.AppendUint16(b, s.from.Port())
	b = binary.BigEndian.AppendUint16(b, s.to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(s.data)))
	b = append(append(b, 0, 0), s.data...)
	return &Packet{Time: s.at, Link: LinkRaw, Data: b, Length: len(b)}
}

// newTracker returns a tracker that collects events.
func newTracker(tb testing.TB, conf *Config) *Tracker {
	tb.Helper()
	t, err := NewTracker(conf)
	if err != nil {
		tb.Fatal(err)
	}
	t.events.wanted.Store(true)
	return t
}

// track adds datagrams to a tracker.
func track(t *Tracker, all []sent) {
	for _, s := range all {
		t.Packet(frame(s))
	}
}

// connections returns all connections.
func connections(t *Tracker) (all []Connection) {
	for c := range t.Connections() {
		all = append(all, c)
	}
	return all
}

// only returns the only connection. It fails the test if there is another number of
// them.
func only(tb testing.TB, t *Tracker) *Connection {
	tb.Helper()
	counted(tb, t)
	all := connections(t)
	if len(all) != 1 {
		for i := range all {
			tb.Logf("%v %v %s", all[i].LogValue(), all[i].Paths, all[i].Evidence)
		}
		tb.Fatalf("got %d connections, want 1", len(all))
	}
	return &all[0]
}

// kinds returns the kinds of the path changes.
func kinds(c *Connection) (out []ChangeKind) {
	for _, change := range c.PathChanges {
		out = append(out, change.Kind)
	}
	return out
}

// toIPv6 moves datagrams to IPv6.
func toIPv6(all []sent) (out []sent) {
	move := func(a netip.AddrPort) netip.AddrPort {
		b := netip.MustParseAddr("2001:db8::").As16()
		copy(b[12:], a.Addr().AsSlice())
		return netip.AddrPortFrom(netip.AddrFrom16(b), a.Port())
	}
	for _, s := range all {
		s.from, s.to = move(s.from), move(s.to)
		out = append(out, s)
	}
	return out
}

// after returns the datagrams of both, the second ones later.
func after(first, second []sent) []sent {
	out := slices.Clone(first)
	late := first[len(first)-1].at.Sub(second[0].at)
	for _, s := range second {
		s.at = s.at.Add(late)
		out = append(out, s)
	}
	return out
}

// withSpin sets the spin bit of short headers, which quic-go does not use.
func withSpin(all []sent) (out []sent) {
	n := map[netip.AddrPort]int{}
	for _, s := range all {
		if n[s.from]++; !wire.IsLong(s.data[0]) && n[s.from]/8%2 == 1 {
			s.data = bytes.Clone(s.data)
			s.data[0] ^= spinBit
		}
		out = append(out, s)
	}
	return out
}

// noise returns random datagrams between few endpoints.
func noise(n int) (out []sent) {
	rng := mathrand.New(mathrand.NewPCG(3, 4))
	for i := range n {
		b := make([]byte, 20+rng.IntN(1400))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		from, to := fmt.Sprintf("192.0.2.9:%d", 1000+i%50), serverAddr
		if i%2 == 1 {
			from, to = to, from
		}
		out = append(out, at(i, from, to, b))
	}
	return out
}

// migrate opens a connection, probes a path from another address and switches to
// it.
func (s *scene) migrate(second string) {
	s.t.Helper()
	conn := s.dial(nil)
	s.exchange(conn, 20000)
	transport := &quic.Transport{Conn: s.network.Listen(second), ConnectionIDLength: 4}
	path, err := conn.AddPath(transport)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		s.t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		s.t.Fatal(err)
	}
	s.exchange(conn, 200000)
	conn.CloseWithError(0, "")
	synctest.Wait()
	transport.Close()
	transport.Conn.Close()
}
