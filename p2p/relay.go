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
// Token and pin may be missing. It returns an ErrMalformedRelay for anything else.
func ParseRelay(s string) (Relay, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != relayScheme || u.Port() == "" || u.Hostname() == "" {
		return Relay{}, fmt.Errorf("p2p: %w: want quicway://TOKEN@HOST:PORT?pin=PIN, got %q", ErrMalformedRelay, redact(s))
	}
	r := Relay{Addr: u.Host, Token: u.User.Username()}
	if pin := u.Query().Get("pin"); pin != "" {
		if r.Pin, err = ParsePeerID(pin); err != nil {
			return Relay{}, fmt.Errorf("p2p: %w: pin: %w", ErrMalformedRelay, err)
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

// relayKey is what tells relays apart.
type relayKey struct {
	addr string
	pin  PeerID
}

func (r Relay) key() relayKey { return relayKey{r.Addr, r.Pin} }

// split returns the host and the port of Addr.
func (r Relay) split() (host string, port uint16, err error) {
	host, service, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return "", 0, fmt.Errorf("%w: address %q: %w", ErrMalformedRelay, r.Addr, err)
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%w: address %q", ErrMalformedRelay, r.Addr)
	}
	return host, uint16(n), nil
}

// lookups asks for the relay's addresses of both families at once, because either
// answer may take long (RFC 8305 §3), and tells how many answers will come. Of what
// comes only those addresses are left that there is a socket for.
func (r Relay) lookups(ctx context.Context, e *Endpoint) (<-chan found, int) {
	out := make(chan found, 2)
	host, port, err := r.split()
	if addr, bad := netip.ParseAddr(host); err != nil || bad == nil {
		out <- found{"ip", e.usable([]netip.Addr{addr}, port), err}
		return out, 1
	}
	for _, network := range []string{"ip6", "ip4"} {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			addrs, err := e.conf.lookupIP(ctx, network, host)
			out <- found{network, e.usable(addrs, port), err}
		}()
	}
	return out, cap(out)
}

// usable returns the addresses that there is a socket for.
func (e *Endpoint) usable(addrs []netip.Addr, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		if a = numberZone(a.Unmap()); a.IsValid() && e.mux.reaches(a) {
			out = append(out, netip.AddrPortFrom(a, port))
		}
	}
	return out
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

// lookupIP asks the system's resolver, or the tests'.
func (c *Config) lookupIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if c.lookup != nil {
		return c.lookup(ctx, network, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

// hostname is the name that a certificate must be valid for.
func (r Relay) hostname() string {
	host, _, _ := net.SplitHostPort(r.Addr)
	return host
}
