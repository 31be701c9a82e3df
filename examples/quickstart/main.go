// Quickstart runs a relay and two peers in one process, and sends 64 MiB from one peer to
// the other through the relay, over one QUIC connection that the relay cannot decrypt.
//
//	go run ./examples/quickstart
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

var quickstart = program.Program{
	Name: "quickstart",
	Does: "runs a relay and two peers, and sends bytes from one peer to the other",
	Uses: []program.Use{
		{Args: "", Does: "send 64 MiB"},
		{Args: "-size 1048576", Does: "send 1 MiB"},
	},
}

func main() {
	size := flag.Int64("size", 64<<20, "`bytes` to send")
	quickstart.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 0); err != nil {
			return err
		}
		if *size < 0 {
			return program.Usagef("-size %d is negative", *size)
		}
		ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it is not done after a minute"))
		defer cancel()
		return run(ctx, *size)
	})
}

func run(ctx context.Context, size int64) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // and not what that has led to
		}
	}()
	// A relay on any free port. Peers need its address, token and pin, which are in its URL.
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	defer func() {
		server.Close()
		if served := <-served; !errors.Is(served, relay.ErrClosed) {
			err = cmp.Or(err, served)
		}
	}()
	at, err := p2p.ParseRelay(server.URL(""))
	if err != nil {
		return err
	}

	// Bob accepts a connection, and Alice dials him.
	bob, err := p2p.NewEndpoint(&p2p.Config{Relay: at})
	if err != nil {
		return err
	}
	defer bob.Close()
	received := make(chan result, 1)
	go func() { received <- receive(ctx, bob) }()
	alice, err := p2p.NewEndpoint(&p2p.Config{Relay: at})
	if err != nil {
		return err
	}
	defer alice.Close()

	// Streams know nothing of ctx. They end with the endpoints.
	defer context.AfterFunc(ctx, func() { alice.Close(); bob.Close() })()

	start := time.Now()
	conn, err := alice.Dial(ctx, bob.ID(), nil)
	if err != nil {
		return err
	}
	shake := time.Since(start)
	start = time.Now()
	sum, err := send(ctx, conn, size)
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
func send(ctx context.Context, conn *p2p.Conn, size int64) (sum [sha256.Size]byte, err error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return sum, err
	}
	block := make([]byte, 1<<20)
	rand.Read(block)
	hash := sha256.New()
	for left := size; left > 0; left -= int64(len(block)) {
		block = block[:min(left, int64(len(block)))]
		hash.Write(block)
		if _, err := stream.Write(block); err != nil {
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
	fmt.Printf("Sent %g MiB in %v: %.0f Mbit/s, SHA-256 equal\n", float64(res.n)/(1<<20), took.Round(time.Millisecond), float64(res.n)*8/1e6/took.Seconds())
	fmt.Printf("Path: %v, round trip %v\n", conn.Path().Kind, conn.Path().RTT.Round(10*time.Microsecond))
	fmt.Printf("Connection IDs issued: %d by the dialer, %d by the accepter\n", conn.Stats().IDs, res.conn.Stats().IDs)
	fmt.Printf("The relay forwarded %d packets, %d bytes, with %d lookups, and dropped %d\n", s.ForwardedPackets, s.ForwardedBytes, s.Lookups, s.Drops())
	fmt.Printf("The relay has seen %d addresses, the sizes and times of packets, and connection IDs. It has no keys.\n", s.Legs)
}
