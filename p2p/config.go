package p2p

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/ratelog"
)

// ALPN is the application protocol that peers speak unless [Config.TLS] names
// others (RFC 7301).
const ALPN = "quicway/1"

// Defaults of [Config].
const (
	defaultOfferTTL  = 2 * time.Minute
	defaultKeepAlive = 15 * time.Second
	defaultIdle      = time.Minute
	minOfferTTL      = time.Second
)

// Config configures an [Endpoint]. The zero value works, but for dialing it
// must name a Relay.
type Config struct {
	// Relay is where this endpoint dials through, and where it takes offers
	// from. Accepting a given [Offer] uses the relay that the offer names.
	Relay Relay

	// Identity is who the endpoint is. nil draws one that lasts as long as
	// the endpoint.
	Identity *Identity

	// AllowPeer, if set, decides which peers may connect to this endpoint.
	// It must not block. nil allows whoever knows how to make an offer
	// reach it.
	AllowPeer func(PeerID) bool

	// TLS replaces the TLS configuration between peers, in which both sides
	// prove their identities, by the user's own. Then Identity only serves
	// towards the relay, and PeerIDs are the hashes of whatever keys are
	// in the certificates. NextProtos defaults to ALPN.
	TLS *tls.Config

	// QUIC configures the connections between peers. Of the zero fields,
	// InitialPacketSize defaults to 1200 bytes, which every path carries, and
	// MaxIdleTimeout to one minute. HandshakeIdleTimeout follows
	// OfferTTL, KeepAlivePeriod is replaced by KeepAlive.
	QUIC *quic.Config

	// OfferTTL is how long an offer that Dial makes can be accepted. 0
	// means 2 minutes. The relay may allow less.
	OfferTTL time.Duration

	// Policy says which paths a connection may take. The zero value wants a
	// direct one, and has the relay as long as there is none.
	Policy PathPolicy

	// LocalCandidates, if set, decides which addresses of this host are told
	// to peers, as places where they may reach it. nil tells all that other
	// hosts can reach.
	LocalCandidates func(netip.Addr) bool

	// LocalInterfaces, if set, decides by its name which interfaces' addresses are
	// told to peers. The name is "" where the system does not tell it. It must not
	// block. nil tells those of all that are up, but if they are more than a
	// dozen, those of bridges and containers on this host last.
	LocalInterfaces func(name string) bool

	// PeerCandidates, if set, decides which addresses that a peer names are
	// sent probes. nil allows public ones, and private ones of a range that
	// this host has an address of. Loopback, link-local and multicast
	// addresses are never probed.
	PeerCandidates func(netip.AddrPort) bool

	// OfferRelays, if set, decides which addresses of relays are connected to that an
	// offer names which was given to [Endpoint.AcceptOffer]. It must not block. nil
	// allows public ones, and private ones of a range that this host has an address
	// of, but no loopback or link-local ones. The relay that is set as Relay may
	// have any address.
	OfferRelays func(netip.AddrPort) bool

	// DisablePortMapping keeps the endpoint from asking the gateway for a
	// port (PCP, NAT-PMP, UPnP), which many a NAT needs to be reached.
	DisablePortMapping bool

	// KeepAlive is how long a connection may be silent before a few bytes
	// keep it and the NAT's mappings alive. 0 means 15 seconds, negative
	// never.
	KeepAlive time.Duration

	// DisableOffload keeps the sockets from using UDP GRO and GSO, which
	// some network drivers get wrong.
	DisableOffload bool

	// Logger gets what happens to connections, never to packets. Of
	// lines of one kind 20 are logged at once, and then one a second. nil
	// discards.
	Logger *slog.Logger

	list   func() ([]netmon.Address, error) // of the host's addresses; nil: the system's
	listen func() ([]net.PacketConn, error) // opens sockets; nil: the system's
	// lookup resolves the relay's name; nil: the system does.
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// PathPolicy says which paths a connection may take. If the two sides differ, the
// one that wants less of the direct path has its way.
type PathPolicy uint8

// The policies.
const (
	// PreferDirect takes a direct path as soon as there is one, and the relay
	// when there is none.
	PreferDirect PathPolicy = iota
	// PreferRelay takes a direct path only while the relay is lost.
	PreferRelay
	// RelayOnly tells the peer no address, and sends it nothing but by the
	// relay.
	RelayOnly
	// DirectOnly lets the application have the connection when it is direct,
	// and ends it with ErrNoDirectPath if it does not become so, or not again
	// after it has died, within ten seconds. The handshake goes by the relay.
	DirectOnly
)

// withDefaults returns a copy of c, which may be nil, with defaults filled in.
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

// packetSize is what every path of QUIC carries (RFC 9000 §14). A connection begins
// with it on each path, and quic-go finds out by itself what else it carries.
const packetSize = 1200

// quicConfig is the configuration of a connection between peers. The handshake
// may take as long as the offer is good: its delivery is part of it.
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

// DialConfig says how one connection is dialed. nil and the zero value deliver
// the offer through the relay's mailbox.
type DialConfig struct {
	// Deliver brings the offer to the peer: by push message, chat, QR code
	// or any other means. It may take long; Dial waits for the peer at the
	// same time, and fails if Deliver does. nil leaves the offer in the
	// relay's mailbox, where the peer's [Endpoint.Accept] finds it.
	Deliver DeliverFunc
}

// listener is what opens an endpoint's sockets, or nil if it is given conns.
func (c *Config) listener(conns []net.PacketConn) func() ([]net.PacketConn, error) {
	switch {
	case c == nil || len(conns) > 0:
		return nil
	case c.listen != nil:
		return c.listen
	}
	return listenUDP
}

// listenUDP opens one socket for each family that the host has.
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
