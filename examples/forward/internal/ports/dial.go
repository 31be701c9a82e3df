package ports

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// dialPatience is how long a target may take to accept a connection, with the lookup of its name.
const dialPatience = 10 * time.Second

// dial connects to a target.
func dial(ctx context.Context, network, target string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialPatience, Control: controlFor(target)}
	return d.DialContext(ctx, network, target)
}

// controlFor checks that localhost is a loopback address, whatever the resolver says (RFC 6761
// §6.3): a permit for localhost permits no other.
func controlFor(hostPort string) func(network, address string, _ syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(hostPort); err != nil || !strings.EqualFold(host, "localhost") {
		return nil
	}
	return func(_, address string, _ syscall.RawConn) error {
		if addr, err := netip.ParseAddrPort(address); err != nil || !addr.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("localhost at %s is %w", address, errNotPermitted)
		}
		return nil
	}
}
