package p2p

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Servers of quic-go alone, whose clients wait as those of a relay do: for the answer to a request of
// HTTP/3 that has begun, or for bytes of a stream.
const (
	waitsAtHTTP = "http3"
	waitsAtQUIC = "quic"
)

// waitingQUIC is like the configuration of the relay's control connections.
func waitingQUIC() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 time.Minute,
		KeepAlivePeriod:                defaultKeepAlive,
		InitialPacketSize:              1200,
		DisablePathMTUDiscovery:        true,
		InitialStreamReceiveWindow:     8 << 10,
		MaxStreamReceiveWindow:         16 << 10,
		InitialConnectionReceiveWindow: 16 << 10,
		MaxConnectionReceiveWindow:     32 << 10,
	}
}

// listenQUIC listens, and prints the address.
func listenQUIC(t *testing.T, protocol string) *quic.Listener {
	conf, _ := benchConfig(t)
	certs := &tls.Config{Certificates: []tls.Certificate{conf.Identity.cert}, NextProtos: []string{protocol}}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(16 << 20) // for the burst; less if the system allows less
	transport := &quic.Transport{Conn: conn}
	listener, err := transport.Listen(certs, waitingQUIC())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(conn.LocalAddr())
	return listener
}

// serveQUIC reads a stream of each connection until its end.
func serveQUIC(t *testing.T) {
	listener := listenQUIC(t, "wait")
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				if stream, err := conn.AcceptStream(context.Background()); err == nil {
					_, _ = stream.Write([]byte{1})
					_, _ = io.Copy(io.Discard, stream)
				}
			}()
		}
	}()
}

// serveHTTP begins to answer each request, and ends the answer when the client leaves.
func serveHTTP(t *testing.T) {
	listener := listenQUIC(t, http3.NextProtoH3)
	server := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})}
	go server.ServeListener(listener)
}

// waitForQUIC has a client wait for bytes of a stream.
func waitForQUIC(ctx context.Context, conn *quic.Conn) error {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(stream, make([]byte, 1))
	return err
}

// waitForHTTP has a client wait for the end of an answer.
func waitForHTTP(ctx context.Context, conn *quic.Conn) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://server/", nil)
	if err != nil {
		return err
	}
	_, err = new(http3.Transport).NewClientConn(conn).RoundTrip(request)
	return err
}

// benchWaitingAlone has 1000 clients connect at once to a server of quic-go alone, and wait. It reports
// the memory of the server.
func benchWaitingAlone(b *testing.B, serves string, wait func(context.Context, *quic.Conn) error) {
	for range b.N {
		s := startWaiting(b, serves)
		ctx, cancel := context.WithCancel(context.Background())
		s.waitAlone(ctx, b, 10, wait)
		before := s.memory(b)
		s.waitAlone(ctx, b, benchClients(), wait)
		time.Sleep(afterBurst())
		after := s.memory(b)
		after.report(b, before)
		cancel()
		s.stop()
	}
}

// waitAlone has n clients connect at once, each by a socket of its own, and wait until ctx is done.
// A client whose attempt fails tries again.
func (r *waitingProcess) waitAlone(ctx context.Context, b *testing.B, n int, wait func(context.Context, *quic.Conn) error) {
	b.Helper()
	var connected sync.WaitGroup
	for range n {
		connected.Go(func() {
			for ctx.Err() == nil && r.dialAlone(ctx, wait) != nil {
				sleep(ctx, minBackoff)
			}
		})
	}
	connected.Wait()
}

// dialAlone connects, and waits.
func (r *waitingProcess) dialAlone(ctx context.Context, wait func(context.Context, *quic.Conn) error) error {
	insecure := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"wait", http3.NextProtoH3}}
	conn, err := quic.DialAddr(ctx, r.address, insecure, waitingQUIC())
	if err != nil {
		return err
	}
	if err := wait(ctx, conn); err != nil {
		_ = conn.CloseWithError(0, "")
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.CloseWithError(0, "") })
	return nil
}
