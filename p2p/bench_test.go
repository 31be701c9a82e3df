package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/relay"
)

// benchChunk is the number of bytes of each write.
const benchChunk = 1 << 20

// BenchmarkThroughput transfers data on one stream between two sockets of this host: on
// the direct path, through the relay, and, for comparison, by quic-go alone. One op is 1
// MiB. It reports packets per system call where they are known.
func BenchmarkThroughput(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchStream(b, plainPair) })
	b.Run("direct", func(b *testing.B) { benchStream(b, directPair) })
	b.Run("relay", func(b *testing.B) { benchStream(b, relayedPair) })
}

// benchEnds are the ends of a connection, and the socket of the first, unless that is
// quic-go's own.
type benchEnds struct {
	from, to *quic.Conn
	socket   *udp.Socket
}

// benchStream sends b.N MiB from one end to the other.
func benchStream(b *testing.B, connect func(*testing.B) benchEnds) {
	ends := connect(b)
	from, to := ends.from, ends.to
	ctx := context.Background()
	out, err := from.OpenUniStreamSync(ctx)
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, benchChunk)
	if _, err := out.Write(chunk[:1]); err != nil {
		b.Fatal(err)
	}
	in, err := to.AcceptUniStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	received := make(chan error, 1)
	b.SetBytes(benchChunk)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(io.Discard, in, int64(b.N)*benchChunk+1)
		received <- err
	}()
	for range b.N {
		if _, err := out.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	if ends.socket != nil {
		stats := ends.socket.Stats()
		b.ReportMetric(float64(stats.TxPackets)/float64(stats.TxBatches), "packets/send")
	}
	lost := from.ConnectionStats()
	b.ReportMetric(100*float64(lost.PacketsLost)/float64(lost.PacketsSent), "%lost")
}

// benchHost is an address of this host that is not loopback, on which connections
// would stay on the relay.
func benchHost(b *testing.B) net.IP {
	b.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.To4()
		}
	}
	b.Skip("this host has no address of IPv4 but loopback")
	return nil
}

func benchSocket(b testing.TB, host net.IP) *net.UDPConn {
	b.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: host})
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// plainPair connects two ends by quic-go alone, with the same certificates and settings.
func plainPair(b *testing.B) benchEnds {
	conf, err := (&Config{}).withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	anybody := func(PeerID) error { return nil }
	host := benchHost(b)
	server := &quic.Transport{Conn: benchSocket(b, host), ConnectionIDLength: 12}
	client := &quic.Transport{Conn: benchSocket(b, host), ConnectionIDLength: 12}
	listener, err := server.Listen(conf.peerTLS(true, anybody), conf.quicConfig())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, t := range []*quic.Transport{client, server} {
			if err := errors.Join(t.Close(), t.Conn.Close()); err != nil {
				b.Error(err)
			}
		}
	})
	from, err := client.Dial(context.Background(), listener.Addr(), conf.peerTLS(false, anybody), conf.quicConfig())
	if err != nil {
		b.Fatal(err)
	}
	to, err := listener.Accept(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return benchEnds{from: from, to: to}
}

func directPair(b *testing.B) benchEnds  { return benchPair(b, PreferDirect) }
func relayedPair(b *testing.B) benchEnds { return benchPair(b, RelayOnly) }

// benchPair connects two endpoints through a relay.
func benchPair(b *testing.B, policy PathPolicy) benchEnds {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	host := benchHost(b)
	server, err := relay.New(nil, benchSocket(b, host))
	if err != nil {
		b.Fatal(err)
	}
	go server.Run(context.Background())
	b.Cleanup(func() { server.Close() })
	pin, err := ParsePeerID(server.Pin())
	if err != nil {
		b.Fatal(err)
	}
	var ends [2]*Endpoint
	for i := range ends {
		ends[i], err = NewEndpoint(&Config{
			Relay:              Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin},
			Policy:             policy,
			DisablePortMapping: true,
		}, benchSocket(b, host))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ends[i].Close() })
	}
	accepted := make(chan *Conn, 1)
	dialed, err := ends[0].Dial(ctx, ends[1].ID(), &DialConfig{Deliver: func(_ context.Context, o Offer) error {
		c, err := ends[1].AcceptOffer(ctx, o)
		accepted <- c
		return err
	}})
	if err != nil {
		b.Fatal(err)
	}
	peer := <-accepted
	for _, c := range []*Conn{dialed, peer} {
		for p := range c.PathEvents(ctx) {
			if (p.Kind != Relayed) == (policy == PreferDirect) {
				break
			}
		}
		if kind := c.Path().Kind; (kind != Relayed) != (policy == PreferDirect) {
			b.Fatalf("the path is of kind %v", kind)
		}
	}
	return benchEnds{dialed.Conn, peer.Conn, ends[0].mux.all()[0]}
}
