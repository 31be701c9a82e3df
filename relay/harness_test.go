package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

const relayAddr = "192.0.2.1:4433"

var testSecret = bytes.Repeat([]byte{7}, minSecret)

// lab is a network with a relay.
type lab struct {
	*testing.T
	net    *nettest.Network
	server *Server
	served chan error
	peers  int

	offload offload // of relays that are started from now on; nil: none
}

// runLab runs a test with a relay and a fake clock. All goroutines of the relay must have
// ended at the end of the test: synctest reports those that have not.
func runLab(t *testing.T, conf *Config, test func(*lab)) {
	t.Helper()
	nettest.Bubble(t, func(t *testing.T) {
		l := &lab{T: t, net: nettest.New(1)}
		l.net.Set(nettest.Conditions{Delay: 5 * time.Millisecond})
		l.start(conf)
		defer l.stop()
		test(l)
	})
}

func (l *lab) start(conf *Config) {
	l.Helper()
	l.server, l.served = l.startAt(relayAddr, conf)
}

// startAt starts a relay at an address.
func (l *lab) startAt(addr string, conf *Config) (*Server, chan error) {
	l.Helper()
	c := Config{}
	if conf != nil {
		c = *conf
	}
	if c.Secret == nil {
		c.Secret = testSecret
	}
	server, err := New(&c, l.net.Listen(addr))
	if err != nil {
		l.Fatal(err)
	}
	if l.offload != nil {
		server.offload = l.offload
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	synctest.Wait()
	return server, served
}

// another starts another relay, which ends with the test.
func (l *lab) another(addr string, conf *Config) *Server {
	l.Helper()
	server, served := l.startAt(addr, conf)
	l.Cleanup(func() {
		server.Close()
		<-served
	})
	return server
}

func (l *lab) stop() {
	l.Helper()
	if err := l.server.Close(); err != nil {
		l.Errorf("Close: %v", err)
	}
	if err := <-l.served; !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		l.Errorf("Run returned %v, want ErrClosed", err)
	}
}

// dataConn is a conn that takes out the packets with IDs of peers, so that the control
// transport does not get them.
type dataConn struct {
	*nettest.Conn
	data   chan []byte
	tunnel *testTunnel // in place of Conn; nil: none
}

func (c *dataConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.tunnel != nil {
		return c.tunnel.WriteTo(b, to)
	}
	return c.Conn.WriteTo(b, to)
}

func (c *dataConn) SetReadDeadline(t time.Time) error {
	if c.tunnel != nil {
		return c.tunnel.raw.SetReadDeadline(t)
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *dataConn) ReadFrom(b []byte) (int, net.Addr, error) {
	read := c.Conn.ReadFrom
	if c.tunnel != nil {
		read = c.tunnel.ReadFrom
	}
	for {
		n, from, err := read(b)
		if err != nil {
			return n, from, err
		}
		dst, err := wire.DstID(b[:n], cid.Len)
		if err != nil || cid.RoleOf(dst) == cid.Relay {
			return n, from, nil
		}
		select {
		case c.data <- bytes.Clone(b[:n]):
		default:
		}
	}
}

// peer is a host that talks to the relay.
type peer struct {
	lab       *lab
	relay     string // the address of its relay
	conn      *dataConn
	transport *quic.Transport
	quic      *quic.Conn
	http      *http3.ClientConn
	cert      tls.Certificate
	session   control.SessionID
	role      control.Role
	key       cid.Key
	resume    string
}

// peer makes a host with a control connection.
func (l *lab) peer() *peer {
	l.Helper()
	return l.peerBy(false)
}

// peerBy is peer, by UDP or through a tunnel.
func (l *lab) peerBy(tunneled bool) *peer {
	l.Helper()
	l.peers++
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		l.Fatal(err)
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		l.Fatal(err)
	}
	p := &peer{lab: l, relay: relayAddr, key: cid.NewKey(), cert: cert}
	addr := fmt.Sprintf("198.51.100.%d:1000", l.peers)
	p.conn = &dataConn{Conn: l.net.Listen(addr), data: make(chan []byte, 4096)}
	if tunneled {
		p.conn.tunnel = l.tunnel(addr)
	}
	p.reconnect()
	l.Cleanup(p.close)
	return p
}

func (p *peer) connect() {
	p.lab.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, Certificates: []tls.Certificate{p.cert}}
	conn, err := p.transport.Dial(context.Background(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(p.relay)), conf,
		&quic.Config{KeepAlivePeriod: 10 * time.Second})
	if err != nil {
		p.lab.Fatalf("connect to relay: %v", err)
	}
	p.quic, p.http = conn, (&http3.Transport{}).NewClientConn(conn)
}

// reconnect gives a peer a new transport and control connection.
func (p *peer) reconnect() {
	p.transport = &quic.Transport{Conn: p.conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	p.connect()
}

// goTo makes the peer connect to another relay, or again to the same one.
func (p *peer) goTo(relay string) {
	p.quic.CloseWithError(0, "")
	p.transport.Close()
	p.relay = relay
	p.reconnect()
}

func (p *peer) close() {
	p.quic.CloseWithError(0, "")
	p.transport.Close()
	p.conn.Close()
}

// do makes a request, and returns the status and the body of the answer.
func (p *peer) do(method, path, auth string, body []byte) (int, []byte) {
	p.lab.Helper()
	req, err := http.NewRequest(method, "https://relay"+path, bytes.NewReader(body))
	if err != nil {
		p.lab.Fatal(err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := p.http.RoundTrip(req)
	if err != nil {
		p.lab.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.lab.Fatalf("%s %s: read body: %v", method, path, err)
	}
	return resp.StatusCode, b
}

// register asks for a leg.
func (p *peer) register(session control.SessionID, req control.Register, token string) (int, control.Registered) {
	p.lab.Helper()
	b, err := json.Marshal(&req)
	if err != nil {
		p.lab.Fatal(err)
	}
	status, body := p.do("POST", fmt.Sprintf(control.LegsPath, session), control.Bearer+token, b)
	var reply control.Registered
	if status == http.StatusOK {
		if err := json.Unmarshal(body, &reply); err != nil {
			p.lab.Fatal(err)
		}
	}
	return status, reply
}

func (p *peer) mustRegister(session control.SessionID, req control.Register, token string) control.Registered {
	p.lab.Helper()
	status, reply := p.register(session, req, token)
	if status != http.StatusOK {
		p.lab.Fatalf("register %v: status %d", req.Role, status)
	}
	p.session, p.role, p.resume = session, req.Role, reply.Resume
	return reply
}

// refresh registers the peer's leg again.
func (p *peer) refresh() int {
	status, _ := p.register(p.session, control.Register{Role: p.role, Key: p.key}, p.resume)
	return status
}

func (p *peer) end(key cid.Key) int {
	text, _ := key.MarshalText()
	status, _ := p.do("DELETE", fmt.Sprintf(control.LegPath, p.session, p.role), control.Leg+string(text), nil)
	return status
}

// pair registers two peers as the legs of a session.
func (l *lab) pair() (dialer, accepter *peer) {
	l.Helper()
	dialer, accepter = l.peer(), l.peer()
	session := control.NewSessionID()
	join := dialer.mustRegister(session, control.Register{Role: control.Dialer, Key: dialer.key}, l.server.Token()).Join
	accepter.mustRegister(session, control.Register{Role: control.Accepter, Key: accepter.key}, join)
	return dialer, accepter
}

// putLegLocked registers a leg for a key, as if a client at addr had asked for it.
func putLegLocked(l *leg, key cid.Key, addr legAddr) {
	l.present, l.client, l.window = true, new(client), cid.NewWindow(0)
	l.ttl, l.lastRefreshed = time.Hour, time.Now()
	l.setKeyLocked(key)
	l.moveLocked(addr)
	l.renewLocked(time.Now())
	l.offloadNextLocked(0)
}

// packet makes a packet with a short header for the ID of a counter.
func (p *peer) packet(counter uint64, payload string) []byte {
	b := append([]byte{0x40}, p.key.ID(cid.Peer, counter).Bytes()...)
	return append(b, payload...)
}

func (p *peer) send(packet []byte) {
	p.lab.Helper()
	if _, err := p.conn.WriteTo(packet, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(p.relay))); err != nil {
		p.lab.Fatal(err)
	}
}

// arrived returns the packets that the peer has received since the last call.
func (p *peer) arrived() [][]byte {
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
	var got [][]byte
	for {
		select {
		case b := <-p.conn.data:
			got = append(got, b)
		default:
			return got
		}
	}
}

// want fails unless exactly these packets have arrived.
func (p *peer) want(packets ...[]byte) {
	p.lab.Helper()
	got := p.arrived()
	if len(got) != len(packets) {
		p.lab.Fatalf("%d packets arrived, want %d", len(got), len(packets))
	}
	for i := range got {
		if !bytes.Equal(got[i], packets[i]) {
			p.lab.Errorf("packet %d: got %x, want %x", i, got[i], packets[i])
		}
	}
}

// dropped fails unless exactly n packets to legs, or to IDs of legs, have been dropped, all for the
// reason why. DropAmplification does not count: it is about packets of the relay's own QUIC,
// which may repeat some of them when a peer connects again from the same address.
func (l *lab) dropped(why Reason, n uint64) {
	l.Helper()
	s := l.server.Stats()
	if s.Dropped[why] != n || s.Drops()-s.Dropped[DropAmplification] != n {
		l.Fatalf("dropped %v, want %d for %v", s.Dropped, n, why)
	}
}
