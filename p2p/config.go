package p2p

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/ratelog"
)

// ALPN is the application protocol (RFC 7301) between peers unless [Config.TLS] names
// others.
const ALPN = "quicway/1"

// Defaults and limits of [Config].
const (
	defaultOfferTTL  = 2 * time.Minute
	defaultKeepAlive = 15 * time.Second
	defaultIdle      = time.Minute
	minOfferTTL      = time.Second
)

// Config configures an [Endpoint]. Accepting offers needs no field, dialing and
// [Endpoint.Accept] need at least one of Relay, Relays and RelaySource. The endpoint keeps a
// copy. Functions may be called concurrently and must not block, except RelaySource.
type Config struct {
	// Relay is the relay that this endpoint dials through, and from whose mailbox it
	// takes offers. [Endpoint.AcceptOffer] uses the relay that the offer names.
	Relay Relay

	// Relays are further relays, at most 16 together with Relay: NewEndpoint returns
	// ErrConfig if there are more. The endpoint dials through the first one of
	// RelayOrder, and keeps its connections registered at a second one (Standby), to
	// which they go when the first one dies or drains. Relays with the same secret have
	// the same Token and Pin, and do not authorize a connection again that comes from
	// one of them to another. nil: only Relay.
	Relays []Relay

	// RelaySource is asked for relays besides Relay and Relays, at the start and then
	// every five minutes, as [RelayList] and [RelaySRV] do. It may block until its
	// context is done. If it fails, the relays of the last time stay. nil: none.
	RelaySource func(context.Context) ([]Relay, error)

	// RelayOrder sorts the relays, the first choice first. It may leave relays out, which
	// are then not used. nil: the nearest one first; those that drain, have refused this
	// endpoint, or do not answer come last. Another relay then becomes the first one only
	// if its round-trip time is shorter by more than 10 ms and more than a quarter.
	// RelayOrder is called often. It may reorder and shorten its argument, and should
	// return only relays of its argument.
	RelayOrder func([]RelayStatus) []RelayStatus

	// Standby says whether connections are kept registered at a second relay. The zero
	// value is StandbyLeg.
	Standby StandbyPolicy

	// Identity is the key of the endpoint. nil generates one for the lifetime of the
	// endpoint.
	Identity *Identity

	// AllowPeer decides which peers may connect to this endpoint, and to which peers
	// it connects. nil allows all.
	AllowPeer func(PeerID) bool

	// TLS replaces the TLS configuration between peers, in which both sides prove
	// their identities. Identity is then used only towards the relay, and a PeerID is
	// the hash of the key in the peer's certificate. NextProtos defaults to ALPN.
	TLS *tls.Config

	// KeyLogWriter gets the secrets of all TLS connections of the endpoint, to peers and
	// to relays, in the format of SSLKEYLOGFILE, with which Wireshark decrypts captured
	// packets. Whoever has them reads everything: it is for debugging. The proof of the
	// peers' identities stays. A KeyLogWriter of TLS or of Relay.TLS comes before it. Write
	// is not called concurrently. nil: none.
	KeyLogWriter io.Writer

	// QUIC configures the connections between peers. InitialPacketSize defaults to
	// 1200 bytes, which every path carries, and MaxIdleTimeout to one minute.
	// HandshakeIdleTimeout is ignored in favor of OfferTTL, and KeepAlivePeriod in
	// favor of KeepAlive.
	QUIC *quic.Config

	// SmallOffers makes the endpoint dial with X25519 as the only key exchange (also with
	// TLS), so that an [Offer] has about 700 bytes instead of 2.4 kB, and a phone can
	// read it as a QR code. Whoever records such a connection may decrypt it one day with
	// a quantum computer. It changes nothing for connections that the endpoint accepts.
	SmallOffers bool

	// OfferTTL is how long an offer of Dial can be accepted. 0 means 2 minutes, and
	// the minimum is 1 second. The relay may allow less.
	OfferTTL time.Duration

	// Policy says which paths a connection may take. The zero value is PreferDirect.
	Policy PathPolicy

	// LocalCandidates decides which addresses of this host peers are told, so that
	// they may reach it there. nil allows all that other hosts can reach.
	LocalCandidates func(netip.Addr) bool

	// LocalInterfaces decides by an interface's name whether its addresses are told to
	// peers. The name is "" if the system does not say it. nil allows all interfaces
	// that are up; at most a dozen addresses are told, those of bridges and containers
	// last.
	LocalInterfaces func(name string) bool

	// PeerCandidates decides which addresses that a peer names are sent probes. nil
	// allows public ones, and private ones of a range in which this host has an
	// address. Loopback, link-local and multicast addresses are never probed.
	PeerCandidates func(netip.AddrPort) bool

	// OfferRelays decides to which addresses of relays [Endpoint.AcceptOffer] may
	// connect, and to which ones that a peer or a relay names. nil allows public ones,
	// and private ones of a range in which this host has an address, but no loopback or
	// link-local ones. The relays of Relay, Relays and RelaySource may have any address.
	//
	// With nil, an offer from a mailbox leads to another relay than these only if the
	// relay of the mailbox names that one as a member, and only these relays, and those
	// with their keys, send this host elsewhere. Otherwise OfferRelays alone decides.
	OfferRelays func(netip.AddrPort) bool

	// DisablePortMapping keeps the endpoint from asking the gateway to forward a port
	// (PCP, NAT-PMP, UPnP). Without a forwarded port fewer direct paths are found.
	DisablePortMapping bool

	// DisableTunnel keeps the endpoint from reaching a relay over TCP when UDP does not
	// reach it. An endpoint with sockets that are not *net.UDPConn never does so.
	DisableTunnel bool

	// Proxy returns the proxy through which a relay is reached over TCP, or nil if there
	// is none, as in [http.Transport]. It gets a request to https:// and the relay's
	// Addr. nil means [http.ProxyFromEnvironment]. A proxy with https:// needs a certificate
	// that the system trusts.
	Proxy func(*http.Request) (*url.URL, error)

	// KeepAlive is how long a connection may be silent before it sends a keepalive,
	// which also keeps the mappings of NATs. 0 means 15 seconds, a negative value
	// none.
	KeepAlive time.Duration

	// DisableOffload keeps the sockets from using UDP GRO and GSO, for network drivers
	// with defects.
	DisableOffload bool

	// Logger logs events of connections, never packets. Of each message, 20 are logged
	// at once and then one a second. nil discards.
	Logger *slog.Logger

	// For tests; nil: the system's.
	list     func() ([]netmon.Address, error) // the host's addresses
	listen   func() ([]net.PacketConn, error) // opens sockets
	dialTCP  func(ctx context.Context, network, address string) (net.Conn, error)
	proxyTLS *tls.Config // for https proxies
	lookup   func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// asOldRelay changes a registration, or the answer to it, to that of an old relay.
	asOldRelay func(*control.Register, *control.Registered)
}

// StandbyPolicy says whether a connection is kept registered at a second relay, the standby
// relay.
type StandbyPolicy uint8

// The policies for standby relays.
const (
	// StandbyLeg: a dialer with more than one relay proposes a standby relay to its
	// peer, and an accepter takes part.
	StandbyLeg StandbyPolicy = iota
	// NoStandby: the endpoint proposes no standby relay, and refuses those that peers
	// propose.
	NoStandby
)

// PathPolicy says which paths a connection may take. If the policies of the two sides
// differ, the one that wants less of the direct path wins: RelayOnly over PreferRelay,
// and that over PreferDirect.
type PathPolicy uint8

// The policies.
const (
	// PreferDirect uses a direct path if there is one, and the relay otherwise.
	PreferDirect PathPolicy = iota
	// PreferRelay uses a direct path only while the relay is lost.
	PreferRelay
	// RelayOnly tells the peer no address, and sends packets only through the relay.
	RelayOnly
	// DirectOnly uses the relay only for the handshake. The connection is returned when
	// it has a direct path. It is closed with ErrNoDirectPath if there is none within
	// ten seconds, at the beginning or after a path has died.
	DirectOnly
)

// withDefaults returns a copy of c, which may be nil, with the defaults set.
func (c *Config) withDefaults() (*Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	if out.OfferTTL == 0 {
		out.OfferTTL = defaultOfferTTL
	}
	if out.OfferTTL < minOfferTTL {
		return nil, fmt.Errorf("p2p: %w: OfferTTL is %v, want at least %v", ErrConfig, out.OfferTTL, minOfferTTL)
	}
	if out.Policy > DirectOnly {
		return nil, fmt.Errorf("p2p: %w: Policy is %d", ErrConfig, out.Policy)
	}
	if out.Standby > NoStandby {
		return nil, fmt.Errorf("p2p: %w: Standby is %d", ErrConfig, out.Standby)
	}
	if n := len(out.Relays) + min(len(out.Relay.Addr), 1); n > maxRelays {
		return nil, fmt.Errorf("p2p: %w: %d relays in Relay and Relays, want at most %d", ErrConfig, n, maxRelays)
	}
	out.Relays = slices.Clone(out.Relays)
	if out.KeepAlive == 0 {
		out.KeepAlive = defaultKeepAlive
	}
	out.Logger = ratelog.New(out.Logger)
	if out.Identity == nil {
		identity, err := NewIdentity()
		if err != nil {
			return nil, err
		}
		out.Identity = identity
	}
	return &out, nil
}

// packetSize is the size of packets that every path of QUIC carries (RFC 9000 §14). A
// connection begins with it on each path, and quic-go searches for a larger one (RFC
// 8899).
const packetSize = 1200

// quicConfig is the QUIC configuration of a connection between peers. The handshake may
// take as long as the offer is valid, because it includes the delivery.
func (c *Config) quicConfig() *quic.Config {
	conf := &quic.Config{}
	if c.QUIC != nil {
		conf = c.QUIC.Clone()
	}
	if conf.InitialPacketSize == 0 {
		conf.InitialPacketSize = packetSize
	}
	if conf.MaxIdleTimeout == 0 {
		conf.MaxIdleTimeout = defaultIdle
	}
	conf.HandshakeIdleTimeout = c.OfferTTL
	conf.KeepAlivePeriod = 0
	return conf
}

// DialConfig configures one call of Dial. nil and the zero value deliver the offer
// through the relay's mailbox.
type DialConfig struct {
	// Deliver brings the offer to the peer, by push message, chat, QR code or any
	// other means. Dial waits for the peer meanwhile, and fails if Deliver returns an
	// error. nil leaves the offer in the relay's mailbox, where the peer's
	// [Endpoint.Accept] takes it.
	Deliver DeliverFunc
}

// listener returns what opens an endpoint's sockets, or nil if the endpoint has conns.
func (c *Config) listener(conns []net.PacketConn) func() ([]net.PacketConn, error) {
	switch {
	case c == nil || len(conns) > 0:
		return nil
	case c.listen != nil:
		return c.listen
	}
	return listenUDP
}

// listenUDP opens one socket for each address family that the host supports.
func listenUDP() ([]net.PacketConn, error) {
	var conns []net.PacketConn
	v4, err4 := net.ListenUDP("udp4", nil)
	if err4 == nil {
		conns = append(conns, v4)
	}
	v6, err6 := net.ListenUDP("udp6", nil)
	if err6 == nil {
		conns = append(conns, v6)
	}
	if len(conns) == 0 {
		return nil, fmt.Errorf("p2p: open socket: %w, %w", err4, err6)
	}
	return conns, nil
}
