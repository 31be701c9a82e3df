// Quickstart runs a relay and two peers in one process, and sends 64 MiB from one peer to
// the other through the relay, over one QUIC connection that the relay cannot decrypt.
//
//	go run ./examples/quickstart
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

const size = 64 << 20

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	// A relay on any free port. Peers need its address, token and pin.
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	defer server.Close()
	go server.Run(ctx)
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		return err
	}
	conf := p2p.Config{Relay: p2p.Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin}}

	// Bob accepts a connection, and Alice dials him.
	bob, err := p2p.NewEndpoint(&p2p.Config{Relay: p2p.Relay{Addr: conf.Relay.Addr, Pin: pin}})
	if err != nil {
		return err
	}
	defer bob.Close()
	received := make(chan result, 1)
	go func() { received <- receive(ctx, bob) }()
	alice, err := p2p.NewEndpoint(&conf)
	if err != nil {
		return err
	}
	defer alice.Close()

	start := time.Now()
	conn, err := alice.Dial(ctx, bob.ID(), nil)
	if err != nil {
		return err
	}
	shake := time.Since(start)
	start = time.Now()
	sum, err := send(ctx, conn)
	if err != nil {
		return err
	}
	res := <-received
	if res.err != nil {
		return res.err
	}
	took := time.Since(start)
	if res.sum != sum {
		return errors.New("the received bytes differ from the sent ones")
	}
	report(conn, res, server, shake, took)
	return nil
}

// send sends size random bytes, and returns their hash.
func send(ctx context.Context, conn *p2p.Conn) (sum [sha256.Size]byte, err error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return sum, err
	}
	block := make([]byte, 1<<20)
	rand.Read(block)
	hash := sha256.New()
	for range size / len(block) {
		hash.Write(block)
		if _, err := io.Copy(stream, bytes.NewReader(block)); err != nil {
			return sum, err
		}
	}
	hash.Sum(sum[:0])
	return sum, stream.Close()
}

type result struct {
	conn *p2p.Conn
	n    int64
	sum  [sha256.Size]byte
	err  error
}

// receive accepts a connection, and hashes what it receives.
func receive(ctx context.Context, bob *p2p.Endpoint) (res result) {
	if res.conn, res.err = bob.Accept(ctx); res.err != nil {
		return res
	}
	stream, err := res.conn.AcceptStream(ctx)
	if err != nil {
		res.err = err
		return res
	}
	hash := sha256.New()
	res.n, res.err = io.Copy(hash, stream)
	hash.Sum(res.sum[:0])
	return res
}

func report(conn *p2p.Conn, res result, server *relay.Server, shake, took time.Duration) {
	s := server.Stats()
	fmt.Printf("Handshake through the relay, including the offer: %v\n", shake.Round(time.Millisecond))
	fmt.Printf("Sent %d MiB in %v: %.0f Mbit/s, SHA-256 equal\n", res.n>>20, took.Round(time.Millisecond), float64(res.n)*8/1e6/took.Seconds())
	fmt.Printf("Path: %v, round trip %v\n", conn.Path().Kind, conn.Path().RTT.Round(10*time.Microsecond))
	fmt.Printf("Connection IDs issued: %d by the dialer, %d by the accepter\n", conn.Stats().IDs, res.conn.Stats().IDs)
	fmt.Printf("The relay forwarded %d packets, %d bytes, with %d lookups, and dropped %d\n", s.ForwardedPackets, s.ForwardedBytes, s.Lookups, s.Drops())
	fmt.Printf("The relay has seen %d addresses, the sizes and times of packets, and connection IDs. It has no keys.\n", s.Legs)
}
