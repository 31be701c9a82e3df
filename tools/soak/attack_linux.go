package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
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

// flood sends useless packets to the relay: Initials that begin a handshake and turn out to
// be garbage, and short headers with unknown connection IDs.
func (s *stage) flood(ctx context.Context) {
	conn, err := listen(s.hosts.mallory, malloryAddr+":0")
	if err != nil {
		s.broke(err)
		return
	}
	defer conn.Close()
	to := netip.MustParseAddrPort(relayAddr)
	const step = 20 * time.Millisecond
	for each := max(1, s.options.attack/int(time.Second/step)); pause(ctx, step); {
		for range each {
			// The attacker's errors do not matter.
			if _, err := conn.WriteToUDPAddrPort(garbage(), to); err == nil {
				s.attacked.Add(1)
			}
		}
	}
}

// garbage makes a packet that passes as many checks as possible.
func garbage() []byte {
	b := make([]byte, 1200)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	if rand.N(4) == 0 {
		b[0], b[1] = b[0]&0x3f|0x40, b[1]&0x7f
		return b
	}
	b[0] = b[0]&0x0f | 0xc0
	copy(b[1:], []byte{0, 0, 0, 1, 8}) // version 1, and an ID of 8 bytes
	b[14], b[15] = 0, 0                // neither a source ID nor a token
	b[16], b[17] = 0x44, 0x9e          // the length of the rest
	return b
}

// bodiesEach is the number of requests on each connection of the second attacker.
const bodiesEach = 32

// halfBodies keeps requests with unfinished bodies open at the relay.
func (s *stage) halfBodies(ctx context.Context) {
	var all sync.WaitGroup
	for range (s.options.bodies + bodiesEach - 1) / bodiesEach {
		all.Go(func() {
			for pause(ctx, 100*time.Millisecond) {
				if err := s.halfBodiesOn(ctx); err != nil {
					s.broke(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// halfBodiesOn keeps such requests open on one connection until the relay closes it. A
// refusal is not an error.
func (s *stage) halfBodiesOn(ctx context.Context) error {
	conn, err := listen(s.hosts.mallory, malloryAddr+":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	transport := &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	defer transport.Close()
	dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	qc, err := transport.Dial(dialing, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relayAddr)),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, &quic.Config{KeepAlivePeriod: 5 * time.Second})
	if err != nil {
		return nil
	}
	defer qc.CloseWithError(0, "")
	defer context.AfterFunc(ctx, func() { qc.CloseWithError(0, "") })()
	client := (&http3.Transport{}).NewClientConn(qc)
	var all sync.WaitGroup
	for range bodiesEach {
		all.Go(func() { s.halfBody(qc.Context(), client) })
	}
	all.Wait()
	return nil
}

// halfBody sends one byte of a body, and waits.
func (s *stage) halfBody(ctx context.Context, client *http3.ClientConn) {
	body, more := io.Pipe()
	defer context.AfterFunc(ctx, func() { more.Close() })()
	go more.Write([]byte("{"))
	url := "https://relay" + fmt.Sprintf(control.LegsPath, control.NewSessionID())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		s.broke(err)
		return
	}
	s.bodies.Add(1)
	resp, err := client.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	more.Close()
	body.Close()
}
