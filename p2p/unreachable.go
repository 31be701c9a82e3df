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
)

// icmpPatience is how long an ICMP error may take.
const icmpPatience = 300 * time.Millisecond

// errSilence: nothing came back, neither an answer nor an error.
var errSilence = errors.New("no answer in time")

// unreachable is the error of an attempt to connect to the relay at an address.
func (h *home) unreachable(ctx context.Context, addr netip.AddrPort, err error) error {
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return err // somewhere else it has answered
	case errors.As(err, &idle), errors.As(err, &handshake), errors.Is(err, context.DeadlineExceeded):
		err = h.silence(addr)
	}
	return fmt.Errorf("%w: %s: %w", ErrRelayUnreachable, h.place(addr), err)
}

// place names the relay and, if the name does not say it, the address.
func (h *home) place(addr netip.AddrPort) string {
	if h.relay.Addr == addr.String() {
		return h.relay.Addr
	}
	return fmt.Sprintf("%s (%v)", h.relay.Addr, addr)
}

// silence says why nothing has come from an address: this system does not send
// there (EPERM, ENETUNREACH), a router or the host itself refuses (ICMP), or
// nobody says anything.
func (h *home) silence(addr netip.AddrPort) error {
	h.mu.Lock()
	err := h.refused[addr]
	h.mu.Unlock()
	if err == nil && isUDP(h.endpoint.mux.all()[0]) {
		err = askICMP(addr)
	}
	if err == nil {
		err = errSilence
	}
	return err
}

// askICMP sends one byte, which a relay drops, by a connected socket, because the
// system tells only such a one of ICMP errors (RFC 1122 §4.1.3.3). It returns nil if
// none comes.
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
