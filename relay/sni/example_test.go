package sni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay/sni"
)

// relayByName relays TLS and QUIC by server name until ctx is done.
func relayByName(ctx context.Context) error {
	server, err := sni.Listen(ctx, "tcp+udp", ":443", &sni.Config{Routes: []*sni.Route{
		{Names: []string{"a.example"}, Upstreams: []string{"10.0.0.2:443"}},
		{Names: []string{"*.b.example"}, Upstreams: []string{"b1.internal:443", "b2.internal:443"}, Balance: sni.LeastConnections},
		{Names: []string{"*.b.example"}, ALPN: []string{"acme-tls/1"}, Upstreams: []string{"10.0.0.9:443"}},
	}})
	if err != nil {
		return err
	}
	return server.Run(ctx) // until ctx is done
}

// Example relays connections until the context is done.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	server, err := sni.Listen(ctx, "tcp", "127.0.0.1:0", &sni.Config{Routes: []*sni.Route{
		{Names: []string{"*.example"}, Upstreams: []string{"192.0.2.1:443"}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Run(ctx), server.Stats().Accepted)
	// Output: <nil> 0
}

// ExampleListen relays TLS over TCP and QUIC at one port, by the same routes.
func ExampleListen() {
	server, err := sni.Listen(context.Background(), "tcp+udp", "127.0.0.1:0", &sni.Config{
		Routes: []*sni.Route{{Names: []string{"*.example"}, Upstreams: []string{"192.0.2.1:443"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Addr() == server.QUICAddr(), server.Close())
	// Output: true <nil>
}

// ExampleConfig is a relay behind a load balancer, with a quota.
func ExampleConfig() {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 64, ConnectionRate: 20}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer controller.Close()
	server, err := sni.Listen(context.Background(), "tcp", "127.0.0.1:0", &sni.Config{
		Routes:    []*sni.Route{{Names: []string{"*"}, Upstreams: []string{"192.0.2.1:443"}, SendProxy: 2}},
		ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Quota:     controller,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Close())
	// Output: <nil>
}

// ExampleServer_SetRoutes changes the routes of a server that runs. A wrong route changes
// nothing.
func ExampleServer_SetRoutes() {
	a := &sni.Route{Names: []string{"a.example"}, Upstreams: []string{"192.0.2.1:443"}}
	server, err := sni.Listen(context.Background(), "tcp", "127.0.0.1:0", &sni.Config{Routes: []*sni.Route{a}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	b := &sni.Route{Names: []string{"b.example"}, Upstreams: []string{"192.0.2.2:443"}}
	fmt.Println(server.SetRoutes([]*sni.Route{a, b}), len(server.Routes()))
	bad := &sni.Route{Names: []string{"c.example"}, Upstreams: []string{"192.0.2.3"}}
	err = server.SetRoutes([]*sni.Route{a, b, bad})
	fmt.Println(errors.Is(err, sni.ErrConfig), err, len(server.Routes()))
	// Output:
	// <nil> 2
	// true sni: invalid configuration: route "c.example": upstream "192.0.2.3", want host:port 2
}

// relayInKernel lets the kernel relay large connections.
func relayInKernel(ctx context.Context) error {
	server, err := sni.Listen(ctx, "tcp", ":443", &sni.Config{
		Splice: &sni.Splice{Interfaces: []string{"eth0", "eth1"}},
		Routes: []*sni.Route{
			{Names: []string{"a.example"}, Upstreams: []string{"10.0.0.2:443"}},
			{Names: []string{"far.example"}, Upstreams: []string{"192.0.2.7:443"}, Policy: sni.Never},
		},
	})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// ExamplePolicy takes connections to the kernel at night only, and only where the default
// policy agrees.
func ExamplePolicy() {
	hour := 3
	policy := func(c *sni.Candidate) bool { return hour < 6 && sni.DefaultPolicy(c) }
	near := &sni.Candidate{ClientRTT: time.Millisecond, UpstreamRTT: time.Millisecond}
	fmt.Println(policy(near))
	near.InKernel, near.Retransmitted = true, 0.01 // one segment of a hundred was sent again
	fmt.Println(policy(near))
	// Output:
	// true
	// false
}

var _, _ = relayByName, relayInKernel // which docs/sni.md shows
