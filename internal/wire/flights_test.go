package wire

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
)

// Keys and IDs are random, so each recording differs. It is only made on demand.
var update = flag.Bool("update", false, "write "+flightsFile)

const (
	serverName = "a-name-that-is-worth-hiding.example"
	protocol   = "quicway-wire-test"
)

// exchange is a connection that quic-go makes.
type exchange struct {
	name           string
	client, server []quic.Version
	curves         []tls.CurveID // nil is the default of Go, with ML-KEM
	clientIDLen    int
	serverIDLen    int
	retry          bool // the server verifies addresses
	resume         bool // it is the second of two, with 0-RTT

	wantVersion Version
	wantTypes   []Type // that appear, besides Initial, Handshake and 1-RTT
	wantFirst   int    // datagrams before the server first answers
}

var exchanges = []exchange{
	{name: "v1", client: v1, server: v1, clientIDLen: 4, serverIDLen: 12, wantVersion: Version1, wantFirst: 2},
	{name: "v1-x25519", client: v1, server: v1, curves: x25519, clientIDLen: 0, serverIDLen: 8, wantVersion: Version1, wantFirst: 1},
	{name: "v2", client: v2, server: v2, clientIDLen: 20, serverIDLen: 20, wantVersion: Version2, wantFirst: 2},
	{name: "v2-x25519", client: v2, server: v2, curves: x25519, clientIDLen: 12, serverIDLen: 12, wantVersion: Version2, wantFirst: 1},
	{name: "v1-retry", client: v1, server: v1, curves: x25519, clientIDLen: 4, serverIDLen: 18, retry: true, wantVersion: Version1, wantTypes: []Type{Retry}, wantFirst: 1},
	{name: "v2-retry", client: v2, server: v2, curves: x25519, clientIDLen: 8, serverIDLen: 5, retry: true, wantVersion: Version2, wantTypes: []Type{Retry}, wantFirst: 1},
	{name: "negotiation", client: []quic.Version{quic.Version2, quic.Version1}, server: v1, curves: x25519, clientIDLen: 6, serverIDLen: 7, wantVersion: Version1, wantTypes: []Type{Negotiation}, wantFirst: 1},
	{name: "v1-0rtt", client: v1, server: v1, curves: x25519, clientIDLen: 4, serverIDLen: 12, resume: true, wantVersion: Version1, wantTypes: []Type{ZeroRTT}},
	{name: "v2-0rtt", client: v2, server: v2, curves: x25519, clientIDLen: 4, serverIDLen: 12, resume: true, wantVersion: Version2, wantTypes: []Type{ZeroRTT}},
}

var (
	v1     = []quic.Version{quic.Version1}
	v2     = []quic.Version{quic.Version2}
	x25519 = []tls.CurveID{tls.X25519}
)

// TestFlights parses whole connections of quic-go.
func TestFlights(t *testing.T) {
	var all []datagram
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) {
			got, ids := record(t, e)
			checkFlight(t, e, got, ids)
			all = append(all, handshakeOf(got)...)
		})
	}
	if *update && !t.Failed() {
		writeFlights(t, all)
	}
}

// TestRecordedFlights parses the handshakes in testdata, which are the same in each run and
// on every system.
func TestRecordedFlights(t *testing.T) {
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) {
			var flight []datagram
			for _, d := range flights(t) {
				if d.flight == e.name {
					flight = append(flight, d)
				}
			}
			checkFlight(t, e, flight, nil)
		})
	}
}

// handshakeOf returns the datagrams up to the first one from each side with a short header.
func handshakeOf(flight []datagram) []datagram {
	var short [2]bool
	for i, d := range flight {
		for h, err := range Packets(d.data, d.idLen) {
			short[d.from] = short[d.from] || err == nil && h.Type == OneRTT
		}
		if short[Client] && short[Server] {
			return flight[:i+1]
		}
	}
	return flight
}

// issuer makes random connection IDs, and remembers them.
type issuer struct {
	n int

	mu     sync.Mutex // guards the following
	issued map[string]bool
}

func newIssuer(n int) *issuer { return &issuer{n: n, issued: map[string]bool{}} }

func (i *issuer) GenerateConnectionID() (quic.ConnectionID, error) {
	id := make([]byte, i.n)
	rand.Read(id)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issued[string(id)] = true
	return quic.ConnectionIDFromBytes(id), nil
}

func (i *issuer) ConnectionIDLen() int { return i.n }

func (i *issuer) has(id []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issued[string(id)]
}

// record makes a connection, and returns its datagrams in the order in which they were
// sent, and the IDs that each side has issued.
func record(t *testing.T, e exchange) (flight []datagram, ids *[2]*issuer) {
	ids = &[2]*issuer{Client: newIssuer(e.clientIDLen), Server: newIssuer(e.serverIDLen)}
	nettest.Bubble(t, func(t *testing.T) {
		network := nettest.New(1)
		network.Set(nettest.Conditions{Delay: 10 * time.Millisecond})
		client, server := network.Listen("192.0.2.1:1"), network.Listen("192.0.2.2:443")
		serverAddr := server.Public()
		var mu sync.Mutex
		network.Filter(func(p nettest.Packet) bool {
			d := datagram{e.name, Client, e.serverIDLen, p.Data}
			if p.From == serverAddr {
				d.from, d.idLen = Server, e.clientIDLen
			}
			mu.Lock()
			defer mu.Unlock()
			flight = append(flight, d)
			return true
		})

		accepting := &quic.Transport{Conn: server, ConnectionIDGenerator: ids[Server]}
		if e.retry {
			accepting.VerifySourceAddress = func(net.Addr) bool { return true }
		}
		go echo(t, e, accepting)
		dialing := &quic.Transport{Conn: client, ConnectionIDGenerator: ids[Client]}
		dial := newDialer(t, e, dialing, server.LocalAddr())
		if e.resume {
			dial()
			synctest.Wait()
			mu.Lock()
			flight = nil
			mu.Unlock()
		}
		dial()

		dialing.Close()
		accepting.Close()
		client.Close()
		server.Close()
		synctest.Wait()
	})
	return flight, ids
}

// echo serves connections until the transport is closed.
func echo(t *testing.T, e exchange, transport *quic.Transport) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Error(err)
		return
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		t.Error(err)
		return
	}
	listener, err := transport.ListenEarly(
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}},
		&quic.Config{Versions: e.server, Allow0RTT: true, DisablePathMTUDiscovery: true})
	if err != nil {
		t.Error(err)
		return
	}
	for {
		conn, err := listener.Accept(context.Background())
		if err != nil {
			return
		}
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(stream, stream)
		stream.Close()
	}
}

// newDialer returns a function that connects, sends data there and back, and closes the
// connection. All its connections share their session tickets.
func newDialer(t *testing.T, e exchange, transport *quic.Transport, to net.Addr) func() {
	tlsConfig := &tls.Config{
		ServerName:         serverName,
		NextProtos:         []string{protocol},
		CurvePreferences:   e.curves,
		InsecureSkipVerify: true, // the test does not check certificates
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	config := &quic.Config{Versions: e.client, DisablePathMTUDiscovery: true}
	return func() {
		conn, err := transport.DialEarly(t.Context(), to, tlsConfig, config)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// More than a datagram, so that short headers go both ways.
		sent := bytes.Repeat([]byte("quicway"), 1000)
		if _, err := stream.Write(sent); err != nil {
			t.Fatal(err)
		}
		stream.Close()
		if got, err := io.ReadAll(stream); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes of %d came back: %v", len(got), len(sent), err)
		}
		<-conn.HandshakeComplete()
		synctest.Wait() // for the session ticket
		conn.CloseWithError(0, "")
	}
}

// reading is what an observer of a flight knows.
type reading struct {
	exchange
	ids    *[2]*issuer // nil if not known
	origID []byte      // that the Initial keys come from; nil before any Initial
	hello  CryptoStream
	seen   map[Type]int
	opened [2]int // Initials, by sender
}

// checkFlight parses each packet of a flight, and checks it against what is known about the
// exchange.
func checkFlight(t *testing.T, e exchange, flight []datagram, ids *[2]*issuer) {
	t.Helper()
	r := reading{exchange: e, ids: ids, seen: map[Type]int{}}
	first := 0
	for first < len(flight) && flight[first].from == Client {
		first++
	}
	if e.wantFirst != 0 && first != e.wantFirst {
		t.Errorf("client sent %d datagrams before the server answered, want %d", first, e.wantFirst)
	}
	for _, d := range flight {
		n := 0
		for h, err := range Packets(d.data, d.idLen) {
			if err != nil {
				t.Fatalf("packet %d of %x: %v", n, d.data, err)
			}
			n += len(h.Packet)
			r.packet(t, d, &h)
		}
		if n != len(d.data) {
			t.Errorf("packets have %d bytes, their datagram %d", n, len(d.data))
		}
	}
	for _, want := range append(e.wantTypes, Initial, Handshake, OneRTT) {
		if r.seen[want] == 0 {
			t.Errorf("no %v packet, have %v", want, r.seen)
		}
		delete(r.seen, want)
	}
	if len(r.seen) != 0 {
		t.Errorf("unexpected packets: %v", r.seen)
	}
	if r.opened[Client] == 0 || r.opened[Server] == 0 {
		t.Errorf("opened %d Initials of the client, %d of the server", r.opened[Client], r.opened[Server])
	}
	if got := serverNameIn(t, r.hello.ClientHello()); got != serverName {
		t.Errorf("crypto/tls reads server name %q in the ClientHello, want %q", got, serverName)
	}
}

func (r *reading) packet(t *testing.T, d datagram, h *Header) {
	t.Helper()
	r.seen[h.Type]++
	if id, err := DstID(h.Packet, d.idLen); err != nil || !bytes.Equal(id, h.DstID) {
		t.Errorf("%v: DstID is %x, %v, Parse says %x", h.Type, id, err, h.DstID)
	}
	if r.ids != nil {
		// Each ID was issued by its owner, except for the first one of the
		// server, which the client has drawn.
		if to := 1 - d.from; !r.ids[to].has(h.DstID) && !bytes.Equal(h.DstID, r.origID) && r.origID != nil {
			t.Errorf("%v: destination ID %x was not issued", h.Type, h.DstID)
		}
		if IsLong(h.First) && h.Type != Negotiation && !r.ids[d.from].has(h.SrcID) {
			t.Errorf("%v: source ID %x was not issued", h.Type, h.SrcID)
		}
	}
	switch h.Type {
	case Negotiation:
		if !bytes.Contains(h.Versions, []byte{0, 0, 0, 1}) {
			t.Errorf("version 1 is not among %x", h.Versions)
		}
		r.origID, r.hello = nil, CryptoStream{} // the client starts again
	case Retry:
		if !VerifyRetry(h, r.origID) {
			t.Error("Retry does not verify")
		}
		r.origID, r.hello = h.SrcID, CryptoStream{}
	case Initial:
		r.initial(t, d.from, h)
	}
	if h.Version.Known() && r.seen[Negotiation] > 0 && h.Version != r.wantVersion {
		t.Errorf("%v of %v, want %v", h.Type, h.Version, r.wantVersion)
	}
}

// initial opens an Initial, seals it again, and takes the ClientHello from it.
func (r *reading) initial(t *testing.T, from Side, h *Header) {
	t.Helper()
	if r.origID == nil {
		r.origID = h.DstID
	}
	opened := reseal(t, h, r.origID, from)
	r.opened[from]++
	for f, err := range CryptoFrames(opened.Payload) {
		if err != nil {
			t.Fatalf("CRYPTO frames: %v", err)
		}
		if from == Client {
			if err := r.hello.Add(f.Offset, f.Data); err != nil {
				t.Fatal(err)
			}
		} else if f.Offset == 0 && f.Data[0] != 2 {
			t.Errorf("server's first handshake message has type %d, want 2, ServerHello", f.Data[0])
		}
	}
}

// reseal opens an Initial, and checks that sealing gives the same packet again.
func reseal(t *testing.T, h *Header, origID []byte, from Side) Opened {
	t.Helper()
	keys, err := NewInitialKeys(h.Version, origID, from)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(h.Packet)
	opened, err := keys.Open(nil, h)
	if err != nil {
		t.Fatalf("open Initial: %v", err)
	}
	if !bytes.Equal(h.Packet, before) {
		t.Error("Open changed the packet")
	}
	sealed, err := keys.Seal(nil, opened.Header, opened.Payload)
	if err != nil {
		t.Fatalf("seal Initial: %v", err)
	}
	if !bytes.Equal(sealed, h.Packet) {
		t.Errorf("sealed again:\ngot  %x\nwant %x", sealed, h.Packet)
	}
	return opened
}

// serverNameIn returns the server name in a ClientHello, as crypto/tls parses it.
func serverNameIn(t *testing.T, hello []byte) (name string) {
	t.Helper()
	done := errors.New("seen enough")
	server := tls.QUICServer(&tls.QUICConfig{TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			name = info.ServerName
			return nil, done
		},
	}})
	server.SetTransportParameters(nil)
	defer server.Close()
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.HandleData(tls.QUICEncryptionLevelInitial, hello); !errors.Is(err, done) {
		t.Errorf("crypto/tls: %v", err)
	}
	return name
}
