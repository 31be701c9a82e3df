package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/udp"
)

// fromOne is a conn that reads only what comes from one address, as a NAT lets nothing else in.
type fromOne struct {
	net.PacketConn
	addr netip.AddrPort
}

func (c fromOne) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || udp.AddrPort(from) == c.addr {
			return n, from, err
		}
	}
}

// TestAnswerComesFromWhereThePacketWent connects to an address of the host that is not the one from
// which the kernel would answer by itself, while the relay is bound to all addresses.
func TestAnswerComesFromWhereThePacketWent(t *testing.T) {
	server, err := Listen(t.Context(), "udp4", "0.0.0.0:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- server.Run(context.Background()) }()
	defer func() {
		server.Close()
		if err := <-ran; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), server.Addr().Port())
	transport := &quic.Transport{Conn: fromOne{conn, at}}
	defer transport.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	client, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(at), conf, nil)
	if err != nil {
		t.Fatalf("no answer from the address that was asked: %v", err)
	}
	if err := client.CloseWithError(0, ""); err != nil {
		t.Error(err)
	}
}
