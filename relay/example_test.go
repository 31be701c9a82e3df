package relay_test

import (
	"context"
	"fmt"
	"log"

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
	fmt.Println("peers need the address, the token and the pin:",
		server.Addr().IsValid(), len(server.Token()) > 0, len(server.Pin()) > 0)

	cancel() // as on a signal
	fmt.Println("it has ended:", server.Run(ctx))
	// Output:
	// peers need the address, the token and the pin: true true true
	// it has ended: <nil>
}

// A relay with the same secret after a restart is recognised by its peers.
func ExampleListen() {
	serve := func(ctx context.Context, secret []byte) error {
		server, err := relay.Listen(ctx, "udp", ":4433", &relay.Config{Secret: secret})
		if err != nil {
			return err
		}
		fmt.Println("peers need", server.Addr(), server.Token(), server.Pin())
		return server.Run(ctx) // until ctx is done
	}
	_ = serve
}

// With an XDP program the kernel forwards packets.
func ExampleConfig_xdp() {
	serve := func(ctx context.Context) error {
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
		server, err := relay.Listen(ctx, "udp", ":4433", &relay.Config{XDP: program})
		if err != nil {
			return err
		}
		return server.Run(ctx)
	}
	_ = serve
}

// Quotas limit the control connections, requests and sessions of each source.
func ExampleConfig_quota() {
	serve := func(ctx context.Context) error {
		connections, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 256, RequestRate: 50}})
		if err != nil {
			return err
		}
		sessions, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 64}})
		if err != nil {
			return err
		}
		server, err := relay.Listen(ctx, "udp", ":4433", &relay.Config{Quota: connections, SessionQuota: sessions})
		if err != nil {
			return err
		}
		return server.Run(ctx)
	}
	_ = serve
}
