package portmap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	serverPort  = 5351 // of both PCP and NAT-PMP
	maxResponse = 1100 // RFC 6887 §7
	firstResend = 250 * time.Millisecond
)

// exchange sends a request to the gateway, and repeats it until parse is done with an
// answer. The socket is connected, so that only the gateway can answer.
func exchange(ctx context.Context, gateway netip.AddrPort, request []byte, parse func([]byte) (done bool, err error)) error {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(gateway))
	if err != nil {
		return fmt.Errorf("ask gateway: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make([]byte, maxResponse+1)
	for resend := firstResend; ; resend *= 2 {
		if _, err := conn.Write(request); err != nil {
			return fmt.Errorf("ask gateway: %w", err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(resend)); err != nil {
			return fmt.Errorf("ask gateway: %w", err)
		}
		for {
			n, err := conn.Read(answer)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				break
			}
			if err != nil {
				return fmt.Errorf("ask gateway: %w", err)
			}
			if done, err := parse(answer[:n]); done {
				return err
			}
		}
	}
}
