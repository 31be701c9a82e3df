package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/tunnel"
)

// icmpPatience is how long an ICMP error may take.
const icmpPatience = 300 * time.Millisecond

// errSilence: neither an answer nor an ICMP error came back.
var errSilence = errors.New("no answer in time")

// unreachable returns the error of an attempt to connect to the relay at an address.
func (c *relayClient) unreachable(ctx context.Context, addr netip.AddrPort, err error) error {
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return err // the relay has answered at another address
	case tunnel.IsAddress(addr.Addr()):
		return fmt.Errorf("%w: %s through a tunnel: %w", ErrRelayUnreachable, c.relay.Addr, err)
	case errors.As(err, &idle), errors.As(err, &handshake), errors.Is(err, context.DeadlineExceeded):
		err = c.silence(addr)
	}
	return fmt.Errorf("%w: %s: %w", ErrRelayUnreachable, c.place(addr), err)
}

// place returns the relay's name and, if that is not the address, the address.
func (c *relayClient) place(addr netip.AddrPort) string {
	if c.relay.Addr == addr.String() {
		return c.relay.Addr
	}
	return fmt.Sprintf("%s (%v)", c.relay.Addr, addr)
}

// silence returns why nothing has come from an address: this system does not send there
// (EPERM, ENETUNREACH), a router or the host refuses (ICMP), or nothing at all came back.
func (c *relayClient) silence(addr netip.AddrPort) error {
	c.mu.Lock()
	err := c.sendErrors[addr]
	c.mu.Unlock()
	if err == nil && isUDP(c.endpoint.mux.all()[0]) {
		err = askICMP(addr)
	}
	if err == nil {
		err = errSilence
	}
	return err
}

// askICMP returns the ICMP error of an address, or nil if there is none. It sends one
// byte, which a relay drops, on a connected socket, because the system reports ICMP
// errors only there (RFC 1122 §4.1.3.3).
func askICMP(addr netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(icmpPatience))
	if _, err := conn.Write([]byte{0}); err != nil {
		return err
	}
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
