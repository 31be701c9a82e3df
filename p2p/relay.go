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

	"github.com/quicway/quicway/internal/control"
)

// Relay is the address of a relay, and what is needed to use it.
type Relay struct {
	// Addr is the host and UDP port, as in "relay.example.org:4433".
	Addr string
	// Token is the access token, which dialing needs. It may be empty for accepting.
	Token string
	// Pin is the hash of the key that the relay must show. With the zero Pin, the relay
	// must show a certificate for the host of Addr that TLS's RootCAs verify.
	Pin PeerID
	// TunnelPort is another TCP port of the relay, besides that of Addr, which is tried
	// when UDP does not reach it: 443 is the one that most networks and proxies allow.
	// 0: none.
	TunnelPort uint16
	// TLS configures how the relay is verified if there is no Pin. nil means by the
	// system's certificate authorities.
	TLS *tls.Config
	// Zone names the place where the relay is. A standby relay is preferably in another
	// zone than the relay that carries. It may be empty.
	Zone string
}

// ParseRelay reads the text form of a relay, which relay.Server.URL returns, and the relay
// example prints:
//
//	quicway://TOKEN@HOST:PORT?pin=PIN&zone=ZONE&tunnel=PORT
//
// Token, pin, zone and tunnel, the TunnelPort, may be missing. Other parameters are ignored. For
// any other text it returns an error that wraps ErrMalformedRelay.
func ParseRelay(s string) (Relay, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != control.RelayScheme || strings.Trim(u.Path, "/") != "" || u.Fragment != "" {
		return Relay{}, notRelay(s)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil { // without what is malformed the pin may be missing
		return Relay{}, notRelay(s)
	}
	r := Relay{Addr: u.Host, Token: u.User.Username(), Zone: query.Get("zone")}
	_, isCut := u.User.Password() // the token has a colon that is not escaped
	if _, _, err := r.split(); err != nil || isCut {
		return Relay{}, notRelay(s)
	}
	if pin := query.Get("pin"); pin != "" {
		if r.Pin, err = ParsePeerID(pin); err != nil {
			return Relay{}, fmt.Errorf("p2p: %w: pin: %w", ErrMalformedRelay, err)
		}
	}
	if tunnel := query.Get("tunnel"); tunnel != "" {
		port, err := strconv.ParseUint(tunnel, 10, 16)
		if err != nil {
			return Relay{}, fmt.Errorf("p2p: %w: tunnel: %w", ErrMalformedRelay, err)
		}
		r.TunnelPort = uint16(port)
	}
	return r, nil
}

// notRelay is the error about a text that is not a relay's.
func notRelay(s string) error {
	return fmt.Errorf("p2p: %w: want quicway://TOKEN@HOST:PORT?pin=PIN, got %q", ErrMalformedRelay, redact(s))
}

// redact removes the token, which may have an @ itself, from a text that may be a URL, for an error
// text.
func redact(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

// String returns the text form, with the token: treat it as a secret.
func (r Relay) String() string {
	u := control.RelayURL{Addr: r.Addr, Token: r.Token, Zone: r.Zone, TunnelPort: r.TunnelPort}
	if !r.Pin.IsZero() {
		u.Pin = r.Pin.String()
	}
	return u.String()
}

// relayKey identifies a relay.
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

// lookups looks up the relay's addresses of both families at the same time, because
// either answer may take long (RFC 8305 §3). It returns how many results the channel will
// get. They hold only addresses that there is a socket for.
func (r Relay) lookups(ctx context.Context, e *Endpoint) (<-chan lookupResult, int) {
	out := make(chan lookupResult, 2)
	host, port, err := r.split()
	if addr, bad := netip.ParseAddr(host); err != nil || bad == nil {
		out <- lookupResult{"ip", e.usable([]netip.Addr{addr}, port), err}
		return out, 1
	}
	for _, network := range []string{"ip6", "ip4"} {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			addrs, err := e.conf.lookupIP(ctx, network, host)
			out <- lookupResult{network, e.usable(addrs, port), err}
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

// numberZone names the interface of a link-local address by its number, as the addresses
// of received packets do.
func numberZone(addr netip.Addr) netip.Addr {
	i, err := net.InterfaceByName(addr.Zone())
	if addr.Zone() == "" || err != nil {
		return addr
	}
	return addr.WithZone(strconv.Itoa(i.Index))
}

// lookupIP asks the resolver of the system, or of a test.
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
