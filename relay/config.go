package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/xdp"
)

// Defaults of [Config], and bounds.
const (
	defaultTTL        = 2 * time.Minute
	minTTL            = 5 * time.Second
	defaultSessions   = 65536
	defaultListeners  = 4096
	defaultPerSource  = 1024
	maxSessionsLimit  = 1 << 24
	defaultOfferTTL   = 2 * time.Minute
	defaultOffers     = 16384
	defaultOfferSize  = 16 << 10
	defaultOffersEach = 16
	minSecret         = 32
	idsPerSession     = 2 * (cid.MaxWidth + 1)
)

// Config configures a [Server]. The zero value works: a relay with secrets of
// its own, which [Server.Token] and [Server.Pin] tell.
type Config struct {
	// Secret, of at least 32 random bytes, is what all else is derived
	// from: the default Token, the key of the default certificate, the
	// tokens of sessions, QUIC's stateless reset and address validation. The
	// key of the resets depends on the host's name and addresses, too, so that
	// relays may share a Secret (RFC 9000 §21.11). A
	// relay that is restarted with the same Secret is recognised by its
	// peers, whose connections live on. nil draws one that dies with the
	// process.
	Secret []byte

	// Token is what a dialer shows to open sessions. Empty derives it from
	// Secret. It is not used if Authorize is set.
	Token string

	// Authorize, if set, decides about tokens in place of Token. It returns
	// the account that sessions are counted under
	// (MaxSessionsPerAccount), or an error to refuse. It is called for
	// every request that opens a session, leaves an offer, or takes one under
	// a name that is no key's, concurrently, and should return soon. What is
	// left under such a name is for those of the same account alone. It is not asked about the legs of a session
	// that this relay has opened before a restart, if they come back within
	// ten times the TTL.
	Authorize func(ctx context.Context, req AuthRequest) (account string, err error)

	// TLS holds the relay's certificate. nil means a self-signed one with a
	// key derived from Secret, which peers know by its [Server.Pin].
	// NextProtos and client authentication are set by the relay.
	TLS *tls.Config

	// Store knows whose connection IDs are whose, in the memory of this
	// process: it is asked for every run of packets, and must not wait for
	// a network or a disk. The relay checks what it says, so that several
	// servers may use one. nil means a [cid.MemoryStore] of the size that
	// MaxSessions needs.
	Store cid.Store

	// MaxSessions bounds the sessions that exist at once. 0 means 65 536;
	// at most 16 777 216.
	MaxSessions int

	// MaxSessionsPerAccount bounds them for one account, which is one token
	// unless Authorize says otherwise. 0 means MaxSessions.
	MaxSessionsPerAccount int

	// MaxConnectionsPerSource bounds the control connections from one
	// address of IPv4, or 64 bits of IPv6: many peers may be behind one
	// NAT, but nobody takes all the room. 0 means 1024.
	MaxConnectionsPerSource int

	// MaxListeners bounds the control connections that wait for offers to their
	// own key and have shown no token, which they need not have. A site, 48 bits
	// of IPv6, may have half of them, and a source, 64 bits, a quarter. If there
	// are too many, the one that has waited for longest is ended: of the source or
	// site that has too many, or of the site that has most. Each may take 100 kB. 0
	// means 4096.
	MaxListeners int

	// TTL is how long a leg lives without traffic or refresh: what a peer
	// gets, unless it asks for less. Traffic counts if it comes from the leg's
	// address, while a control connection of the session is there; if it is
	// the other leg's, for ten times the TTL. 0 means 2 minutes; at least 5
	// seconds.
	TTL time.Duration

	// OfferTTL is how long the mailbox keeps an offer. 0 means 2 minutes.
	OfferTTL time.Duration

	// MaxOffers bounds the offers in the mailbox, and 4 KiB times MaxOffers
	// their bytes. 0 means 16 384, negative closes the mailbox. When there is
	// no room, the account that has most there loses its latest offer to one
	// that has less, and within an account the sender, which is an address of
	// IPv4 or 48 bits of IPv6.
	MaxOffers int

	// MaxOffersPerName bounds those that wait under one name, in the same
	// way. 0 means 16.
	MaxOffersPerName int

	// MaxOfferSize bounds one offer, in bytes. 0 means 16 KiB.
	MaxOfferSize int

	// Shards is how many sockets, and goroutines that forward, [Listen]
	// opens with SO_REUSEPORT. 0 means one for each CPU where the system
	// can do that, else one.
	Shards int

	// Quota, if set, decides about the control connections, by source, and
	// about how many requests a source and a connection may make, which
	// registrations are. MaxConnectionsPerSource holds as well. If it has an
	// XDP program, that leaves the relay's port to Go, since only the relay
	// knows which Initials it forwards. It is the caller's, who may share it
	// with other servers.
	Quota *quota.Controller

	// SessionQuota, if set, decides how many sessions a source may have open,
	// and how fast it may open them: the connections of its Limits are
	// sessions here. A session counts for the address that it was registered
	// from. Whoever is on its deny list opens none; those that are open live
	// on. It must be another controller than Quota, which counts connections.
	SessionQuota *quota.Controller

	// XDP, if set, forwards in the kernel what it can on the interfaces that
	// it is attached to. It may be attached and detached while the server
	// runs. The server writes into it until it is closed, and leaves it to
	// its owner then, without sessions, so that one server uses one program.
	// New fails if the program was loaded without a relay stage. If the kernel has
	// refused that stage, the server forwards all packets itself, and logs so.
	//
	// If the program is pinned (xdp.Config.Pin) it forwards on without the
	// server, and the next one takes the sessions over, with the legs' keys.
	// It should have the same Secret, so that the peers come back to it, for
	// which they have the time of TTL.
	XDP *xdp.Program

	// DisableOffload keeps the sockets from using UDP GRO and GSO, which
	// some network drivers get wrong.
	DisableOffload bool

	// Logger gets what happens to sessions, never to packets. Of
	// lines of one kind 20 are logged at once, and then one a second. nil discards.
	Logger *slog.Logger
}

// Purpose is what a token is shown for.
type Purpose uint8

// The purposes.
const (
	// OpenSession opens a session, as its dialer.
	OpenSession Purpose = iota
	// LeaveOffer leaves an offer under a name.
	LeaveOffer
	// TakeOffer takes offers, or acknowledges one, under a name that is no
	// key's.
	TakeOffer
	// AwaitOffers waits for offers to the client's own key, which needs no token: the
	// client is not bounded by [Config.MaxListeners] if Authorize takes the one
	// that it shows. It is asked once for each connection.
	AwaitOffers
)

// String returns a name fit for a log.
func (p Purpose) String() string {
	switch p {
	case OpenSession:
		return "open session"
	case LeaveOffer:
		return "leave offer"
	case TakeOffer:
		return "take offer"
	case AwaitOffers:
		return "await offers"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// AuthRequest is what a token is judged by.
type AuthRequest struct {
	// Token is what the request showed.
	Token string
	// Purpose is what the token is shown for.
	Purpose Purpose
	// Name is that of the offer, in lower case: a peer's ID, or any text. It
	// is empty for OpenSession.
	Name string
	// Remote is the validated address of the sender.
	Remote netip.AddrPort
}

// withDefaults returns a copy of c, which may be nil, with defaults filled in.
func (c *Config) withDefaults() *Config {
	var out Config
	if c != nil {
		out = *c
	}
	setDefault(&out.MaxSessions, defaultSessions)
	setDefault(&out.MaxSessionsPerAccount, out.MaxSessions)
	setDefault(&out.MaxConnectionsPerSource, defaultPerSource)
	setDefault(&out.MaxListeners, defaultListeners)
	setDefault(&out.TTL, defaultTTL)
	setDefault(&out.OfferTTL, defaultOfferTTL)
	setDefault(&out.MaxOffers, defaultOffers)
	setDefault(&out.MaxOffersPerName, defaultOffersEach)
	setDefault(&out.MaxOfferSize, defaultOfferSize)
	out.Logger = ratelog.New(out.Logger)
	return &out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate says which field cannot work.
func (c *Config) validate() error {
	switch {
	case c.Secret != nil && len(c.Secret) < minSecret:
		return fmt.Errorf("%w: Secret has %d bytes, want at least %d", ErrConfig, len(c.Secret), minSecret)
	case c.MaxSessions < 0 || c.MaxSessions > maxSessionsLimit:
		return fmt.Errorf("%w: MaxSessions is %d, want 1 to %d", ErrConfig, c.MaxSessions, maxSessionsLimit)
	case c.MaxSessionsPerAccount < 0:
		return fmt.Errorf("%w: MaxSessionsPerAccount is negative", ErrConfig)
	case c.MaxConnectionsPerSource < 0:
		return fmt.Errorf("%w: MaxConnectionsPerSource is negative", ErrConfig)
	case c.MaxListeners < 0:
		return fmt.Errorf("%w: MaxListeners is negative", ErrConfig)
	case c.TTL < minTTL:
		return fmt.Errorf("%w: TTL is %v, want at least %v", ErrConfig, c.TTL, minTTL)
	case c.OfferTTL < 0:
		return fmt.Errorf("%w: OfferTTL is negative", ErrConfig)
	case c.MaxOffersPerName < 0:
		return fmt.Errorf("%w: MaxOffersPerName is negative", ErrConfig)
	case c.MaxOfferSize < 0:
		return fmt.Errorf("%w: MaxOfferSize is negative", ErrConfig)
	case c.Quota != nil && c.Quota == c.SessionQuota:
		return fmt.Errorf("%w: Quota and SessionQuota are one controller", ErrConfig)
	case c.Shards < 0:
		return fmt.Errorf("%w: Shards is negative", ErrConfig)
	}
	return nil
}

func (c *Config) socketConfig() *udp.Config {
	return &udp.Config{DisableGRO: c.DisableOffload, DisableGSO: c.DisableOffload}
}
