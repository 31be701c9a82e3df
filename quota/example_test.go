package quota_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/xdp"
)

// An HTTP/3 server under a quota.
func ExampleController_Transport() {
	serve := func(conn *net.UDPConn, tlsConf *tls.Config, mux http.Handler) error {
		controller, err := quota.New(&quota.Config{
			Source: quota.Limits{Connections: 64, ConnectionRate: 20, RequestRate: 200},
		})
		if err != nil {
			return err
		}
		transport, err := controller.Transport(&quic.Transport{Conn: conn})
		if err != nil {
			return err
		}
		listener, err := transport.ListenEarly(http3.ConfigureTLSConfig(tlsConf), nil)
		if err != nil {
			return err
		}
		server := &http3.Server{Handler: controller.Handler(mux)}
		return server.ServeListener(listener)
	}
	_ = serve
}

// A server of a protocol other than HTTP/3.
func ExampleTransport_Listen() {
	serve := func(ctx context.Context, conn *net.UDPConn, conf *tls.Config, handle func(*quic.Conn)) error {
		controller, err := quota.New(nil)
		if err != nil {
			return err
		}
		transport, err := controller.Transport(&quic.Transport{Conn: conn})
		if err != nil {
			return err
		}
		defer transport.Close()
		listener, err := transport.Listen(conf, nil)
		if err != nil {
			return err
		}
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return err
			}
			go handle(conn)
		}
	}
	_ = serve
}

// A denied prefix is kept out at once, until the entry expires.
func ExampleController_Deny() {
	controller, err := quota.New(nil)
	if err != nil {
		panic(err)
	}
	abuser := netip.MustParsePrefix("192.0.2.0/24")
	if err := controller.Deny(abuser, time.Hour, "abuse"); err != nil {
		panic(err)
	}
	controller.End(abuser) // its existing connections
	_, err = controller.Admit(netip.MustParseAddrPort("192.0.2.7:4242"), true)
	fmt.Println(err)
	for entry := range controller.Entries() {
		fmt.Println(entry.List, entry.Prefix, entry.Reason)
	}
	// Output:
	// 192.0.2.7/32 refused: denied
	// deny 192.0.2.0/24 abuse
}

// Slots can limit other things than QUIC connections.
func ExampleController_Admit() {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 1}})
	if err != nil {
		panic(err)
	}
	peer := netip.MustParseAddrPort("[2001:db8::1]:4242")
	slot, err := controller.Admit(peer, true)
	fmt.Println(slot != nil, err)
	_, err = controller.Admit(peer, true)
	fmt.Println(err)
	slot.Release()
	slot, err = controller.Admit(netip.MustParseAddrPort("[2001:db8::2]:4242"), true) // of the same /64
	fmt.Println(slot != nil, err)
	// Output:
	// true <nil>
	// 2001:db8::/64 refused: connections
	// true <nil>
}

// A login is limited more than the other pages: five requests at once, and then one in ten
// seconds.
func ExampleController_Route() {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{RequestRate: 200}})
	if err != nil {
		panic(err)
	}
	login, err := controller.Route("POST /login", quota.RouteLimits{
		Source: quota.RequestLimit{Rate: 0.1, Burst: 5},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /login", login.Handler(http.HandlerFunc(logIn)))
	mux.Handle("/", http.FileServer(http.Dir("static")))
	handler := controller.Handler(mux) // for http3.Server and http.Server

	for range 6 {
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, httptest.NewRequest("POST", "/login", nil))
		fmt.Printf("%d, Retry-After %q\n", response.Code, response.Header().Get("Retry-After"))
	}
	// Output:
	// 204, Retry-After ""
	// 204, Retry-After ""
	// 204, Retry-After ""
	// 204, Retry-After ""
	// 204, Retry-After ""
	// 429, Retry-After "10"
}

func logIn(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// A load balancer at 10.0.0.0/24 replaces the addresses of all clients by its own.
func ExampleOverride_shared() {
	controller, err := quota.New(&quota.Config{
		ConnectionRequestRate: 50,
		Source:                quota.Limits{Connections: 2},
		Total:                 quota.Limits{Connections: 100_000, ConnectionRate: 5000},
		Overrides:             []quota.Override{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Shared: true}},
	})
	if err != nil {
		panic(err)
	}
	for port := range uint16(100) {
		if _, err := controller.Admit(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), true); err != nil {
			panic(err)
		}
	}
	fmt.Println(controller.Stats().Connections)
	// Output: 100
}

// All IPv4 clients behind a NAT64 (RFC 6052) have addresses in 64:ff9b::/96, which is part of
// a /64 and so would be one source. SourceOf finds their IPv4 addresses.
func ExampleConfig_sourceOf() {
	nat64 := netip.MustParsePrefix("64:ff9b::/96")
	controller, err := quota.New(&quota.Config{
		Source: quota.Limits{Connections: 1},
		SourceOf: func(from netip.AddrPort) netip.Addr {
			if nat64.Contains(from.Addr()) {
				ip := from.Addr().As16()
				return netip.AddrFrom4([4]byte(ip[12:]))
			}
			return from.Addr()
		},
	})
	if err != nil {
		panic(err)
	}
	for _, from := range []string{"[64:ff9b::c000:201]:1", "[64:ff9b::c000:202]:1", "[64:ff9b::c000:201]:2"} {
		_, err := controller.Admit(netip.MustParseAddrPort(from), true)
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// <nil>
	// 192.0.2.1/32 refused: connections
}

// The kernel drops what the packet filter would drop.
func ExampleConfig_xdp() {
	run := func() error {
		program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
		if err != nil {
			return err
		}
		defer program.Close()
		controller, err := quota.New(&quota.Config{XDP: program, Excess: quota.Drop})
		if err != nil {
			return err
		}
		defer controller.Close()
		mode, err := program.Attach("eth0", xdp.Auto)
		if err != nil {
			return err
		}
		fmt.Println("the kernel drops in", mode, "mode")
		return nil
	}
	if err := run(); err != nil {
		fmt.Println(err) // for example without privileges, or without eth0
	}
}
