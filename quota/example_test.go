package quota_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/xdp"
)

// A protected HTTP/3 server.
func ExampleController_Protect() {
	serve := func(conn *net.UDPConn, cert tls.Certificate, mux http.Handler) error {
		controller, err := quota.New(&quota.Config{
			Source: quota.Limits{Connections: 64, ConnectionRate: 20, RequestRate: 200},
		})
		if err != nil {
			return err
		}
		transport := &quic.Transport{Conn: conn}
		if err := controller.Protect(transport); err != nil {
			return err
		}
		conf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
		listener, err := transport.ListenEarly(conf, nil)
		if err != nil {
			return err
		}
		server := &http3.Server{Handler: controller.Handler(mux)}
		return server.ServeListener(controller.Listener(listener))
	}
	_ = serve
}

// A protected server of a protocol other than HTTP/3.
func ExampleController_Listener() {
	serve := func(ctx context.Context, conn *net.UDPConn, conf *tls.Config, handle func(*quic.Conn)) error {
		controller, err := quota.New(nil)
		if err != nil {
			return err
		}
		transport := &quic.Transport{Conn: conn}
		if err := controller.Protect(transport); err != nil {
			return err
		}
		inner, err := transport.Listen(conf, nil)
		if err != nil {
			return err
		}
		listener := controller.Listener(inner)
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
