package sni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Listen opens sockets and makes a Server of them. The caller closes the Server. Network says
// what the server relays:
//
//   - "tcp", "tcp4" or "tcp6": TLS over TCP,
//   - "udp", "udp4" or "udp6": QUIC,
//   - "tcp+udp", "tcp4+udp4" or "tcp6+udp6": both, at the same port.
//
// Address is host:port, as in [net.Listen]. cfg may be nil. An error about cfg wraps ErrConfig;
// other errors come from the system.
func Listen(ctx context.Context, network, address string, cfg *Config) (*Server, error) {
	tcp, udp, ok := networks(network)
	if !ok {
		return nil, fmt.Errorf("sni: %w: network %q, want tcp, udp or tcp+udp", ErrConfig, network)
	}
	listener, conns, err := openSockets(ctx, tcp, udp, address, cfg)
	for tries := 1; err != nil && tcp != "" && udp != "" && anyPort(address) && tries < portTries; tries++ {
		listener, conns, err = openSockets(ctx, tcp, udp, address, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("sni: %w", err)
	}
	return New(cfg, listener, conns...)
}

// portTries is how often Listen looks for a port that is free for TCP and UDP.
const portTries = 10

// networks returns the networks of TCP and UDP, each of which may be empty.
func networks(network string) (tcp, udp string, ok bool) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return network, "", true
	case "udp", "udp4", "udp6":
		return "", network, true
	case "tcp+udp", "tcp4+udp4", "tcp6+udp6":
		tcp, udp, _ = strings.Cut(network, "+")
		return tcp, udp, true
	}
	return "", "", false
}

func anyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && (port == "0" || port == "")
}

// openSockets opens the sockets.
func openSockets(ctx context.Context, tcp, udp, address string, cfg *Config) (*net.TCPListener, []net.PacketConn, error) {
	var listener *net.TCPListener
	if tcp != "" {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false) // splice(2) and TCP_INFO are about plain TCP
		l, err := lc.Listen(ctx, tcp, address)
		if err != nil {
			return nil, nil, err
		}
		listener = l.(*net.TCPListener)
		address = withPort(address, listener)
	}
	if udp == "" {
		return listener, nil, nil
	}
	conns, err := listenUDP(ctx, udp, address, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll(listener, conns))
	}
	return listener, conns, nil
}

// withPort returns an address with the port of a listener.
func withPort(address string, l *net.TCPListener) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return address
	}
	return net.JoinHostPort(host, port)
}

// closeAll closes sockets. listener may be nil, and some may have been closed.
func closeAll(listener *net.TCPListener, conns []net.PacketConn) error {
	var errs []error
	if listener != nil {
		errs = append(errs, listener.Close())
	}
	for _, c := range conns {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
