package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/monitor"
)

const (
	recordedServer = "198.51.100.2:443"
	recordedDelay  = 30 * time.Millisecond // one way
)

// datagram is one that has crossed a simulated network.
type datagram struct {
	at       time.Time
	from, to netip.AddrPort
	data     []byte
}

// recorded are the datagrams of a connection: in turns of a second, and after its client
// has got another port.
type recorded struct {
	turns [][]datagram
	moved [][]datagram // a turn for each new port
}

// record plays a connection of quic-go for each name, from addresses of their own.
func record(t *testing.T, turns, moves int, names ...string) map[string]*recorded {
	t.Helper()
	out := make(map[string]*recorded)
	nettest.Bubble(t, func(t *testing.T) {
		r := &recorder{t: t, network: nettest.New(1)}
		r.network.Set(nettest.Conditions{Delay: recordedDelay})
		r.network.Filter(r.keep)
		stop := r.listen()
		for i, name := range names {
			out[name] = r.play(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), turns, moves)
		}
		stop()
		synctest.Wait()
	})
	return out
}

// recorder keeps the datagrams of a network.
type recorder struct {
	t       *testing.T
	network *nettest.Network

	mu  sync.Mutex // guards the following
	all []datagram
}

func (r *recorder) keep(p nettest.Packet) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, datagram{time.Now(), p.From, p.To, p.Data})
	return true
}

// take returns the datagrams since the last call.
func (r *recorder) take() []datagram {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.all
	r.all = nil
	return out
}

// listen runs a server that echoes streams.
func (r *recorder) listen() (stop func()) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		r.t.Fatal(err)
	}
	conn := r.network.Listen(recordedServer)
	transport := &quic.Transport{Conn: conn, ConnectionIDLength: 8}
	listener, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go echo(conn)
		}
	}()
	return func() {
		transport.Close()
		conn.Close()
	}
}

// echo sends the data of each stream back.
func echo(conn *quic.Conn) {
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		io.Copy(stream, stream)
		stream.Close()
	}
}

// play opens a connection, exchanges data in each turn, and moves to other ports.
func (r *recorder) play(name string, client netip.Addr, turns, moves int) *recorded {
	socket := r.network.Listen(netip.AddrPortFrom(client, 50000).String())
	defer socket.Close()
	transport := &quic.Transport{Conn: socket, ConnectionIDLength: 4}
	defer transport.Close()
	conn, err := transport.Dial(r.t.Context(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(recordedServer)),
		&tls.Config{ServerName: name, NextProtos: []string{"h3"}, InsecureSkipVerify: true}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	out := &recorded{}
	for range turns {
		out.turns = append(out.turns, r.exchange(conn))
	}
	for i := range moves {
		r.network.Rebind(socket, netip.AddrPortFrom(client, uint16(51000+i)).String())
		out.moved = append(out.moved, r.exchange(conn))
	}
	conn.CloseWithError(0, "")
	time.Sleep(time.Second)
	r.take()
	return out
}

// exchange has data echoed for a second, and returns the datagrams.
func (r *recorder) exchange(conn *quic.Conn) []datagram {
	stream, err := conn.OpenStreamSync(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	go func() {
		for range 100 {
			stream.Write(make([]byte, 300))
			time.Sleep(11 * time.Millisecond)
		}
		stream.Close()
	}()
	if _, err := io.ReadAll(stream); err != nil {
		r.t.Fatal(err)
	}
	return r.take()
}

// spinning sets the spin bit of short headers, which quic-go does not use, as RFC 9000
// §17.4 says.
func spinning(turns [][]datagram) (out [][]datagram) {
	var last [2][]datagram // with short headers, by sender: the client, the server
	for _, turn := range turns {
		turn = slices.Clone(turn)
		for i := range turn {
			d := &turn[i]
			if wire.IsLong(d.data[0]) {
				continue
			}
			from := 0
			if d.from.String() == recordedServer {
				from = 1
			}
			d.data = bytes.Clone(d.data)
			d.data[0] &^= spinBit
			if spin(last[1-from], d.at) != (from == 0) {
				d.data[0] |= spinBit
			}
			last[from] = append(last[from], *d)
		}
		out = append(out, turn)
	}
	return out
}

const spinBit = 0x20

// spin returns the spin bit of the last of some datagrams that has arrived by a time.
func spin(sent []datagram, at time.Time) bool {
	for _, d := range slices.Backward(sent) {
		if !d.at.Add(recordedDelay).After(at) {
			return d.data[0]&spinBit != 0
		}
	}
	return false
}

// feed is a live source of the packets that a test sends.
type feed struct {
	packets chan monitor.Packet
	closed  chan struct{}
	close   sync.Once
	now     time.Time // of the packets
}

func newFeed() *feed {
	return &feed{packets: make(chan monitor.Packet), closed: make(chan struct{}), now: time.Now()}
}

// send sends datagrams at their distances in time.
func (f *feed) send(all ...datagram) {
	began := f.now
	for _, d := range all {
		frame := &packet.Frame{Src: d.from, Dst: d.to, TTL: 64, Payload: d.data}
		data := frame.Build(make([]byte, 6), make([]byte, 6))
		f.now = began.Add(d.at.Sub(all[0].at))
		select {
		case f.packets <- monitor.Packet{Time: f.now, Link: monitor.LinkEthernet, Data: data, Length: len(data)}:
		case <-f.closed:
			return
		}
	}
	f.now = f.now.Add(time.Millisecond)
}

// pass lets time pass for the packets.
func (f *feed) pass(d time.Duration) { f.now = f.now.Add(d) }

// Read implements [monitor.Source].
func (f *feed) Read(p *monitor.Packet) error {
	select {
	case *p = <-f.packets:
		return nil
	case <-f.closed:
		return net.ErrClosed
	}
}

// Live implements [monitor.Source]. A source that is not live loses no events.
func (f *feed) Live() bool { return false }

// Dropped implements [monitor.Source].
func (f *feed) Dropped() uint64 { return 0 }

// Close implements [monitor.Source].
func (f *feed) Close() error {
	f.close.Do(func() { close(f.closed) })
	return nil
}
