package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/relay"
)

// open opens the sockets of the relay, and serves the TCP sockets. failed gets the reason when one
// of them ends before the relay.
func (o *options) open(ctx context.Context, conf *relay.Config) (server *relay.Server, failed <-chan error, err error) {
	var listeners []net.Listener
	err = program.AnyPort(o.listen, func() (err error) {
		if server, err = relay.Listen(ctx, "udp", o.listen, conf); err != nil {
			return err
		}
		if listeners, err = o.listenTCP(ctx, server.Addr()); err != nil {
			return errors.Join(err, server.Close())
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go serveTCP(server, l, ended)
	}
	return server, ended, nil
}

// listenTCP opens the TCP sockets for tunnels, or none.
func (o *options) listenTCP(ctx context.Context, addr netip.AddrPort) (listeners []net.Listener, err error) {
	ports := []uint16{addr.Port()}
	if other := uint16(o.tunnel); other != 0 && other != addr.Port() {
		ports = append(ports, other)
	}
	for _, port := range ports {
		var conf net.ListenConfig
		l, err := conf.Listen(ctx, "tcp", netip.AddrPortFrom(addr.Addr(), port).String())
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func serveTCP(server *relay.Server, l net.Listener, failed chan<- error) {
	if err := server.ServeTCP(l); !errors.Is(err, relay.ErrClosed) {
		failed <- fmt.Errorf("tunnels at %v: %w", l.Addr(), err)
	}
}
