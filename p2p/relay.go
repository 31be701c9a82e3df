package p2p

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Relay says where a relay is and what a peer needs there.
type Relay struct {
	// Addr is its host and UDP port, as in "relay.example.org:4433".
	Addr string
	// Token opens sessions and leaves offers. Whoever only accepts needs
	// none.
	Token string
	// Pin is the key that the relay must show. Zero: a certificate that is
	// valid for the host of Addr, by TLS's RootCAs.
	Pin PeerID
	// TLS adds to what the relay is verified with if there is no Pin. nil
	// means the system's certificate authorities.
	TLS *tls.Config
}

// relayScheme begins the text form of a [Relay].
const relayScheme = "quicway"

// ParseRelay reads the text form of a relay, which the relay example prints:
//
//	quicway://TOKEN@HOST:PORT?pin=PIN
//
// Token and pin may be missing. It returns an ErrRelay for anything else.
func ParseRelay(s string) (Relay, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != relayScheme || u.Port() == "" || u.Hostname() == "" {
		return Relay{}, fmt.Errorf("p2p: %w: want quicway://TOKEN@HOST:PORT?pin=PIN, got %q", ErrRelay, redact(s))
	}
	r := Relay{Addr: u.Host, Token: u.User.Username()}
	if pin := u.Query().Get("pin"); pin != "" {
		if r.Pin, err = ParsePeerID(pin); err != nil {
			return Relay{}, fmt.Errorf("p2p: %w: pin: %w", ErrRelay, err)
		}
	}
	return r, nil
}

// redact keeps a token out of an error about text that is nearly a URL.
func redact(s string) string {
	if _, host, ok := strings.Cut(s, "@"); ok {
		return "…@" + host
	}
	return s
}

// String returns the text form, with the token: treat it as a secret.
func (r Relay) String() string {
	u := url.URL{Scheme: relayScheme, Host: r.Addr}
	if r.Token != "" {
		u.User = url.User(r.Token)
	}
	if !r.Pin.IsZero() {
		u.RawQuery = url.Values{"pin": {r.Pin.String()}}.Encode()
	}
	return u.String()
}

// resolve returns the relay's addresses, of the families that have a socket.
func (r Relay) resolve(ctx context.Context, usable func(netip.Addr) bool) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q: %w", ErrRelay, r.Addr, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: port %q", ErrRelay, service)
	}
	addrs, err := lookup(ctx, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	}
	for _, a := range addrs {
		if a = numberZone(a.Unmap()); usable(a) {
			return netip.AddrPortFrom(a, uint16(port)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%w: no socket for the addresses of %s", ErrRelayUnreachable, host)
}

// numberZone names the interface of a link-local address by its number, as in
// the addresses that packets come from.
func numberZone(addr netip.Addr) netip.Addr {
	i, err := net.InterfaceByName(addr.Zone())
	if addr.Zone() == "" || err != nil {
		return addr
	}
	return addr.WithZone(strconv.Itoa(i.Index))
}

func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// hostname is the name that a certificate must be valid for.
func (r Relay) hostname() string {
	host, _, _ := net.SplitHostPort(r.Addr)
	return host
}
