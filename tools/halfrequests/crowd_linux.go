package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// crowd is the unauthenticated clients. They keep their connections alive.
type crowd struct {
	relay net.Addr

	mu         sync.Mutex // guards the following
	transports []*quic.Transport
	conns      []*quic.Conn
	opened     int
	failure    error // the last one of opening a connection
}

func newCrowd(relay string) *crowd {
	return &crowd{relay: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relay))}
}

// atOnce is how many connections are opened at the same time.
const atOnce = 16

// come opens all connections, from as many source addresses as necessary.
func (c *crowd) come(ctx context.Context, o *options) {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, atOnce)
	for i := range o.connections {
		if i%o.each == 0 && !c.source(i/o.each) {
			return
		}
		transport := c.transports[len(c.transports)-1]
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			c.open(ctx, transport, o.bodies)
		})
	}
}

// source opens the socket of another source address, in 127.0.0.0/8.
func (c *crowd) source(n int) bool {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failure = err
		return false
	}
	transport := &quic.Transport{Conn: socket, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	c.transports = append(c.transports, transport)
	return true
}

// open opens one connection and begins its requests.
func (c *crowd) open(ctx context.Context, transport *quic.Transport, bodies int) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := transport.Dial(ctx, c.relay,
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}},
		&quic.Config{KeepAlivePeriod: 5 * time.Second})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failure = err
		return
	}
	c.opened++
	c.conns = append(c.conns, conn)
	client := (&http3.Transport{}).NewClientConn(conn)
	for range bodies {
		go halfBody(conn.Context(), client)
	}
}

// halfBody sends the beginning of a body and waits.
func halfBody(ctx context.Context, client *http3.ClientConn) {
	body, more := io.Pipe()
	defer body.Close()
	go more.Write([]byte(`{"key":"` + string(make([]byte, 4000))))
	url := "https://relay" + fmt.Sprintf(control.LegsPath, control.NewSessionID())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		panic(err) // the URL is valid
	}
	if resp, err := client.RoundTrip(req); err == nil { // a refusal is not an error
		resp.Body.Close()
	}
}

// alive is the number of connections that the relay has not closed.
func (c *crowd) alive() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if conn.Context().Err() == nil {
			n++
		}
	}
	return n
}

func (c *crowd) close() {
	for _, t := range c.transports {
		_ = t.Close()
		_ = t.Conn.Close()
	}
}
