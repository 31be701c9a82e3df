package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
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
	defaultTunnels    = 4096
	defaultOfferTTL   = 2 * time.Minute
	defaultOffers     = 16384
	defaultOfferSize  = 16 << 10
	defaultOffersEach = 256
	minSecret         = 32
	idsPerSession     = 2 * (cid.MaxWidth + 1)
)

// Config configures a [Server]. The zero value works: the relay draws a new Secret, and
// [Server.Token] and [Server.Pin] return what its clients need.
type Config struct {
	// Secret is at least 32 random bytes, from which the relay derives the default
	// Token, the key of the default certificate, and the keys of session tokens, of
	// QUIC's stateless resets and of its address validation. Peers recognise a
	// relay that is restarted with the same Secret, and their connections
	// survive the restart. Several relays may have the same Secret, if their clocks
	// agree within 5 seconds: a session goes on at another of them with the tokens of
	// the first. The key of the resets differs between them by Name. nil draws a Secret
	// that is lost when the process ends.
	Secret []byte

	// OldSecrets are up to 8 other secrets, whose tokens the relay accepts as well: access
	// tokens (unless Token or Authorize is set) and session tokens. It makes none with
	// them. The keys that are derived from them vouch for that of the default
	// certificate, so that peers with an old Pin accept it. To change the Secret of
	// several relays without a break, restart them three times: first with the new
	// secret as NextSecret, then with the new one as Secret and the old one in
	// OldSecrets, and at last without the old one. The last step can be taken when ten
	// TTLs have passed, the peers have the new Token and Pin, and Stats.OldSecretUses
	// does not grow any more. While there are two secrets, MaxSessionsPerAccount counts
	// the sessions of each of them by themselves.
	OldSecrets [][]byte

	// NextSecret is the secret that the relays are about to have. The relay accepts its
	// tokens, as those of OldSecrets, but its key vouches for nothing. nil: none.
	NextSecret []byte

	// Name tells the relay from others with the same Secret. It has at most 64 bytes,
	// and must not change at a restart: the key of stateless resets, by which clients
	// notice the restart, is derived from Secret and Name. Two relays with the same
	// Secret must not have the same Name: one could be made to end the connections of
	// the other (RFC 9000 §21.11). Empty: a name that is made of the host's name and
	// addresses.
	Name string

	// Advertise is the host and port that clients are told for this relay, and tell
	// their peers. It matters if they find the relay by another address, which leads to
	// several relays, as with anycast or behind a load balancer. Empty: clients tell
	// their peers the address that they have used.
	Advertise string

	// Zone names the place of the relay, in at most 64 bytes. Relays with different zones
	// are not expected to fail together.
	Zone string

	// TunnelPort is a TCP port, other than the number of the UDP port, at which clients
	// reach a listener that [Server.ServeTCP] gets, such as 443. [Server.URL] names it. 0:
	// none.
	TunnelPort uint16

	// Members are up to 15 other relays, to which clients go when this one drains or is
	// full. They should have the same Secret. An entry with the Name of this relay is
	// ignored. [Server.SetMembers] replaces them while the server runs. The server
	// does not ask whether they are there.
	Members []Member

	// Token is the access token, which a dialer needs to open sessions. Empty:
	// derived from Secret. It is not used if Authorize is set.
	Token string

	// Authorize, if set, checks access tokens in place of Token. It returns the
	// account that the token belongs to, which MaxSessionsPerAccount holds for, or
	// an error to refuse the token. It is called for each request that opens a
	// session, leaves an offer, or takes an offer under a name that is not the ID
	// of a key; calls may be concurrent, and should return soon. An offer under
	// such a name can only be taken by the account that has left it. Authorize is
	// not called when a leg comes back within ten times the TTL after the relay was
	// restarted.
	Authorize func(ctx context.Context, req AuthRequest) (account string, err error)

	// TLS has the relay's certificate. nil: a self-signed certificate with a key
	// derived from Secret, which clients check by its [Server.Pin]. The relay sets
	// NextProtos, MinVersion and ClientAuth itself.
	TLS *tls.Config

	// Store keeps which leg is behind which connection ID. It is asked for each run
	// of packets, so it has to be in the memory of this process, and must not wait
	// for a network or a disk. The relay checks the answers against its sessions,
	// so several servers may use one Store. nil: a [cid.MemoryStore] with room for
	// MaxSessions.
	Store cid.Store

	// MaxSessions bounds the sessions that exist at once. 0 means 65 536; the
	// maximum is 16 777 216.
	MaxSessions int

	// MaxSessionsPerAccount bounds the sessions of one account. Without Authorize
	// there is only one account. 0 means MaxSessions.
	MaxSessionsPerAccount int

	// MaxConnectionsPerSource bounds the control connections from one source, which
	// is an IPv4 address or 64 bits of IPv6. Many peers may be behind one NAT. 0
	// means 1024.
	MaxConnectionsPerSource int

	// MaxListeners bounds the control connections that wait for offers to their own
	// key without an access token, which they do not need. Of these, a site (an
	// IPv4 address or 48 bits of IPv6) may have half, and a source (64 bits) a
	// quarter. If there are too many, the relay closes the oldest one of the source
	// or site that has too many, or of the site that has most. Each connection may
	// take 100 kB. 0 means 4096.
	MaxListeners int

	// MaxTunnels bounds the TCP connections of [Server.ServeTCP]: those with a tunnel, and
	// those that have not asked for one yet, for which they have ten seconds. A site (an
	// IPv4 address or 48 bits of IPv6) may have half of them, and a source (64 bits) a
	// quarter; a new connection that is one too many is closed. A tunnel takes 100 kB.
	// While its client does not read, it takes up to 1.4 MB more: two buffers of 512 KiB,
	// which grow by a quarter at a time, and 65 KiB of TLS records. 0 means 4096; negative:
	// no tunnels.
	MaxTunnels int

	// TTL is how long a leg lives after its last refresh or its last packet. A peer
	// may ask for less. Packets count if they come from the leg's address, and a
	// control connection of the session is alive: without limit if it is the leg's
	// own, and for ten times the TTL after the last refresh if it is the other
	// leg's. 0 means 2 minutes; the minimum is 5 seconds.
	TTL time.Duration

	// OfferTTL is how long the mailbox keeps an offer. 0 means 2 minutes.
	OfferTTL time.Duration

	// MaxOffers bounds the offers in the mailbox, and MaxOffers times 4 KiB bounds
	// their size together. 0 means 16 384; negative: the mailbox takes no offers.
	// When the mailbox is full, a new offer replaces the latest offer of the account
	// that has most, and within that account of the sender that has most. If that is
	// the sender of the new offer, the new offer is refused. A sender is an IPv4
	// address or 48 bits of IPv6.
	MaxOffers int

	// MaxOffersPerName bounds the offers under one name in the same way. 0 means 256.
	MaxOffersPerName int

	// MaxOfferSize bounds one offer, in bytes. 0 means 16 KiB.
	MaxOfferSize int

	// Shards is how many sockets [Listen] opens with SO_REUSEPORT. Each has a
	// forwarding goroutine of its own. 0 means one for each CPU if the system can
	// do that, and one otherwise. [New] ignores it.
	Shards int

	// Quota, if set, limits the control connections of a source, and the requests
	// of a source and of a connection; registrations are requests, too.
	// MaxConnectionsPerSource applies as well. If the controller has an XDP
	// program, the program does not filter the relay's port, because only the relay
	// knows which Initials it forwards. The caller owns the controller, and may use
	// it for other servers as well.
	Quota *quota.Controller

	// SessionQuota, if set, limits how many sessions a source may have open, and how
	// fast it may open them: its limits on connections apply to sessions. A session
	// counts for the address that opened it. An address on the deny list cannot
	// open sessions, but its open sessions live on. SessionQuota must not be the
	// same controller as Quota.
	SessionQuota *quota.Controller

	// XDP, if set, forwards packets in the kernel, on the interfaces that the
	// program is attached to. The caller may attach and detach it while the server
	// runs, and closes it after the server. A program can serve one Server only.
	// When the server is closed, it removes its sessions from the program. New
	// fails if the program was loaded without its relay stage. If the kernel has
	// refused that stage, the server forwards all packets itself, and logs a
	// warning.
	//
	// A pinned program (xdp.Config.Pin) goes on to forward without the server. The
	// next server takes the sessions over, with the keys of their legs. It should
	// have the same Secret, so that the peers can come back to it, which they have
	// to do within the TTL.
	XDP *xdp.Program

	// DisableOffload disables UDP GRO and GSO, with which some network drivers have
	// bugs. It does not concern XDP.
	DisableOffload bool

	// Logger logs the events of sessions, never single packets. Of messages of one
	// kind it logs 20 at once, and then one per second. nil: no log.
	Logger *slog.Logger
}

// Purpose is what a client shows an access token for.
type Purpose uint8

// The purposes.
const (
	// OpenSession: to open a session, as its dialer.
	OpenSession Purpose = iota
	// LeaveOffer: to leave an offer under a name.
	LeaveOffer
	// TakeOffer: to take or acknowledge an offer under a name that is not the ID of
	// a key.
	TakeOffer
	// AwaitOffers: to wait for offers to the client's own key. That needs no token,
	// but [Config.MaxListeners] does not apply to a client whose token is accepted.
	// Authorize is asked once for each connection.
	AwaitOffers
)

// String returns the name of the purpose for a log.
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

// AuthRequest is the argument of [Config.Authorize].
type AuthRequest struct {
	// Token is the token that the client has shown, or "".
	Token string
	// Purpose is what the client shows the token for.
	Purpose Purpose
	// Name is the name of the offer, in lower case: the ID of a key, or any other
	// text. It is empty for OpenSession.
	Name string
	// Remote is the address of the client, which QUIC has validated.
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
	setDefault(&out.MaxTunnels, defaultTunnels)
	setDefault(&out.TTL, defaultTTL)
	setDefault(&out.OfferTTL, defaultOfferTTL)
	setDefault(&out.MaxOffers, defaultOffers)
	setDefault(&out.MaxOffersPerName, defaultOffersEach)
	setDefault(&out.MaxOfferSize, defaultOfferSize)
	out.MaxOfferSize = min(out.MaxOfferSize, math.MaxInt-1) // one byte more is read
	out.Logger = ratelog.New(out.Logger)
	return &out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns an error if a field has an invalid value.
func (c *Config) validate() error {
	switch {
	case c.Secret != nil && len(c.Secret) < minSecret:
		return fmt.Errorf("%w: Secret has %d bytes, want at least %d", ErrConfig, len(c.Secret), minSecret)
	case len(c.OldSecrets) > maxOldSecrets:
		return fmt.Errorf("%w: %d OldSecrets, want at most %d", ErrConfig, len(c.OldSecrets), maxOldSecrets)
	case (len(c.OldSecrets) > 0 || c.NextSecret != nil) && c.Secret == nil:
		return fmt.Errorf("%w: OldSecrets or NextSecret without Secret", ErrConfig)
	case c.NextSecret != nil && len(c.NextSecret) < minSecret:
		return fmt.Errorf("%w: NextSecret has %d bytes, want at least %d", ErrConfig, len(c.NextSecret), minSecret)
	case slices.ContainsFunc(c.OldSecrets, func(s []byte) bool { return len(s) < minSecret }):
		return fmt.Errorf("%w: one of OldSecrets is shorter than %d bytes", ErrConfig, minSecret)
	case len(c.Name) > maxName || len(c.Zone) > maxName:
		return fmt.Errorf("%w: Name or Zone is longer than %d bytes", ErrConfig, maxName)
	case c.Advertise != "" && checkAddr(c.Advertise) != nil:
		return fmt.Errorf("%w: Advertise: %w", ErrConfig, checkAddr(c.Advertise))
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
		return fmt.Errorf("%w: Quota and SessionQuota are the same controller", ErrConfig)
	case c.Shards < 0:
		return fmt.Errorf("%w: Shards is negative", ErrConfig)
	}
	_, err := checkMembers(c.Members, c.Name)
	return err
}

func (c *Config) socketConfig() *udp.Config {
	return &udp.Config{DisableGRO: c.DisableOffload, DisableGSO: c.DisableOffload, Unpolled: true}
}
