package p2p

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/relay"
)

// dialBlock is how many dials of one kind BenchmarkDial makes in a row.
const dialBlock = 32

// BenchmarkDial compares the CPU time of a dial through the mailbox, at both peers and the
// relay, with that of a dial by quic-go alone with the same certificates. It includes the
// end of the connections. One op is dialBlock dials of either kind.
func BenchmarkDial(b *testing.B) {
	plain, mailbox := newPlainDialer(b), newMailboxDialer(b)
	plain()()
	mailbox()()
	var spent [2]time.Duration
	b.ResetTimer()
	for range b.N {
		for i, dial := range []func() (end func()){plain, mailbox} {
			before := cpuTime(b)
			for range dialBlock {
				dial()()
			}
			time.Sleep(closeLinger + 200*time.Millisecond) // until nothing of the connections is left
			spent[i] += cpuTime(b) - before
		}
	}
	dials := float64(b.N * dialBlock)
	b.ReportMetric(float64(spent[0].Microseconds())/dials, "plain-cpu-µs")
	b.ReportMetric(float64(spent[1].Microseconds())/dials, "mailbox-cpu-µs")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}

// cpuTime is the CPU time that the process has used.
func cpuTime(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func loopbackSocket(b *testing.B) *net.UDPConn {
	return benchSocket(b, net.IPv4(127, 0, 0, 1))
}

// newPlainDialer returns a function that makes a connection by quic-go alone, and returns one that ends it.
func newPlainDialer(b *testing.B) func() (end func()) {
	conf, err := (&Config{}).withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	anybody := func(PeerID) error { return nil }
	server := &quic.Transport{Conn: loopbackSocket(b), ConnectionIDLength: 12}
	client := &quic.Transport{Conn: loopbackSocket(b), ConnectionIDLength: 12}
	listener, err := server.Listen(conf.peerTLS(true, anybody), conf.quicConfig())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		client.Close()
		server.Close()
		client.Conn.Close()
		server.Conn.Close()
	})
	return func() (end func()) {
		c, err := client.Dial(context.Background(), listener.Addr(), conf.peerTLS(false, anybody), conf.quicConfig())
		if err != nil {
			b.Fatal(err)
		}
		s, err := listener.Accept(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			c.CloseWithError(0, "")
			<-s.Context().Done()
		}
	}
}

// newMailboxDialer returns a function that makes a connection through a relay, and returns one that ends it.
func newMailboxDialer(b *testing.B) func() (end func()) {
	server, err := relay.New(nil, loopbackSocket(b))
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
			Policy:             RelayOnly,
			DisablePortMapping: true,
		}, loopbackSocket(b))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ends[i].Close() })
	}
	return func() (end func()) {
		accepted := make(chan *Conn, 1)
		go func() {
			c, err := ends[1].Accept(context.Background())
			if err != nil {
				b.Error(err)
			}
			accepted <- c
		}()
		c, err := ends[0].Dial(context.Background(), ends[1].ID(), nil)
		if err != nil {
			b.Fatal(err)
		}
		s := <-accepted
		return func() {
			if s != nil {
				c.CloseWithError(0, "")
				<-s.Context().Done()
			}
		}
	}
}
