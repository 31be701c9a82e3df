package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net"
	"net/url"
	"time"

	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	at, err := url.Parse(server.URL("")) // what peers need: address, token and pin
	fmt.Println(at.Scheme, at.Hostname(), len(at.User.Username()) > 0, at.Query().Get("pin") == server.Pin(), err)

	cancel() // as on a signal
	fmt.Println("it has ended:", server.Run(ctx))
	// Output:
	// quicway 127.0.0.1 true true <nil>
	// it has ended: <nil>
}

// A relay with the same secret after a restart is recognised by its peers.
func ExampleListen() {
	ctx, cancel := context.WithCancel(context.Background())
	secret := bytes.Repeat([]byte{1}, 32) // use random bytes, and keep them

	serve := func(address string) error {
		server, err := relay.Listen(ctx, "udp", address, &relay.Config{Secret: secret})
		if err != nil {
			return err
		}
		fmt.Println("peers need", server.URL("relay.example.org:4433"))
		return server.Run(ctx) // until ctx is done
	}
	cancel()                          // as on a signal
	fmt.Println(serve("127.0.0.1:0")) // ":4433" for other hosts
	// Output:
	// peers need quicway://BxmGhwQG9OqEN72AWHPLPdIUovor6nCY@relay.example.org:4433?pin=fbkh6hqfxglirtjmiblnsdhutwi4423vomxvclivtyofavxwiuoa
	// <nil>
}

// Relays with the same secret send peers to each other when they are full, or stop.
func ExampleConfig_members() {
	ctx, cancel := context.WithCancel(context.Background())
	secret := make([]byte, 32)
	rand.Read(secret)

	serve := func(address string) error {
		conf := &relay.Config{
			Secret: secret, // the same for all of them
			Name:   "a",
			Zone:   "eu",
			Members: []relay.Member{ // the list may be the same for all of them
				{Name: "a", Addr: "a.example.org:4433", Zone: "eu"},
				{Name: "b", Addr: "b.example.org:4433", Zone: "us"},
			},
		}
		server, err := relay.Listen(ctx, "udp", address, conf)
		if err != nil {
			return err
		}
		served := make(chan error, 1)
		go func() { served <- server.Run(context.Background()) }()
		<-ctx.Done() // as on a signal
		leaving, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.Shutdown(leaving); err != nil {
			return err
		}
		return <-served
	}
	cancel()
	fmt.Println(errors.Is(serve("127.0.0.1:0"), relay.ErrClosed))
	// Output: true
}

// Where UDP is blocked, clients reach the relay over TCP.
func ExampleServer_ServeTCP() {
	ctx, cancel := context.WithCancel(context.Background())
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}

	serve := func(address string) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return errors.Join(err, server.Close())
		}
		accepted := make(chan error, 1)
		go func() { accepted <- server.ServeTCP(listener) }()
		return errors.Join(server.Run(ctx), <-accepted)
	}
	cancel()                                                      // as on a signal
	fmt.Println(errors.Is(serve("127.0.0.1:0"), relay.ErrClosed)) // the same port as UDP, and 443
	// Output: true
}

// With an XDP program the kernel forwards packets.
func ExampleConfig_xdp() {
	serve := func(ctx context.Context, address string) error {
		program, err := xdp.Load(nil)
		if err != nil {
			return err
		}
		defer program.Close()
		mode, err := program.Attach("eth0", xdp.Auto)
		if err != nil {
			return err
		}
		fmt.Println("the kernel forwards in", mode, "mode")
		server, err := relay.Listen(ctx, "udp", address, &relay.Config{XDP: program})
		if err != nil {
			return err
		}
		return server.Run(ctx)
	}
	if err := serve(context.Background(), ":4433"); err != nil { // needs root
		log.Fatal(err)
	}
}

// Quotas limit the control connections, requests and sessions of each source.
func ExampleConfig_quota() {
	ctx, cancel := context.WithCancel(context.Background())

	serve := func(address string) error {
		connections, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 256, RequestRate: 50}})
		if err != nil {
			return err
		}
		sessions, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 64}})
		if err != nil {
			return err
		}
		server, err := relay.Listen(ctx, "udp", address, &relay.Config{Quota: connections, SessionQuota: sessions})
		if err != nil {
			return err
		}
		return server.Run(ctx)
	}
	cancel() // as on a signal
	fmt.Println(serve("127.0.0.1:0"))
	// Output: <nil>
}
