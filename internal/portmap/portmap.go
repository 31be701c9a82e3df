// Package portmap asks the gateway of the local network to forward a UDP port. It uses PCP
// (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD at the same time, and takes the first valid
// answer. It accepts answers only from the gateway, and only mappings to this host. It
// supports IPv4 only: sending is enough to open an IPv6 firewall.
package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrNone: the gateway has not mapped the port, or there is none.
var ErrNone = errors.New("portmap: no gateway maps the port")

const (
	defaultLifetime = time.Hour
	defaultTimeout  = 3 * time.Second
	minRenewal      = 4 * time.Second // RFC 6887 §11.2.1
	firstRetry      = time.Minute
	lastRetry       = time.Hour
)

// Protocol is the protocol by which a mapping was made.
type Protocol string

const (
	PCP    Protocol = "PCP"
	NATPMP Protocol = "NAT-PMP"
	UPnP   Protocol = "UPnP"
)

// Mapping is a port that a gateway forwards.
type Mapping struct {
	External netip.AddrPort // the address that others send to
	Lifetime time.Duration  // at most Config.Lifetime
	Protocol Protocol
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// Private says whether the external address is not public. There is another NAT outside the
// gateway then, and only hosts within that NAT can use the mapping.
func (m Mapping) Private() bool {
	a := m.External.Addr()
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// good says whether m is valid.
func (m Mapping) good() bool {
	a := m.External.Addr()
	return m.External.Port() != 0 && a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && m.Lifetime > 0
}

// Config configures a [Mapper]. nil means the zero value.
type Config struct {
	// Lifetime is the lifetime that the gateway is asked for. 0 means an hour.
	Lifetime time.Duration
	// Timeout bounds each request, and Close. 0 means 3 seconds.
	Timeout time.Duration
	// Gateway returns the gateway, and this host's address towards it. nil asks the
	// system, or guesses if the system does not say.
	Gateway func() (gateway, local netip.Addr, err error)

	protocols []protocol // for tests; nil is all
}

// protocol asks once to make, renew, or, for a lifetime of 0, delete a mapping. It returns
// when ctx is done.
type protocol func(ctx context.Context, r request) (Mapping, error)

type request struct {
	gateway, local netip.Addr
	port           uint16         // internal
	external       netip.AddrPort // of the mapping to renew, or invalid
	lifetime       time.Duration
	nonce          [12]byte // PCP's, one for the life of the mapping
}

func (c *Config) withDefaults() *Config {
	conf := Config{}
	if c != nil {
		conf = *c
	}
	if conf.Lifetime <= 0 {
		conf.Lifetime = defaultLifetime
	}
	if conf.Timeout <= 0 {
		conf.Timeout = defaultTimeout
	}
	if conf.Gateway == nil {
		conf.Gateway = gateway
	}
	if conf.protocols == nil {
		conf.protocols = []protocol{pcp{port: serverPort}.ask, natpmp{port: serverPort}.ask, upnp{search: multicast}.ask}
	}
	return &conf
}

// Mapper keeps a port mapped. Its methods may be called concurrently.
type Mapper struct {
	conf    *Config
	port    uint16
	nonce   [12]byte
	changes chan struct{}
	refresh chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	lease   *lease
	tried   chan struct{} // closed when the first request has ended
	attempt sync.Once
}

// lease is a mapping, and what is needed to renew it.
type lease struct {
	Mapping
	expires  time.Time
	protocol protocol
	request  request
}

// New starts to map a UDP port. It does not block. The caller closes the mapper.
func New(internalPort uint16, cfg *Config) *Mapper {
	m := &Mapper{
		conf:    cfg.withDefaults(),
		port:    internalPort,
		changes: make(chan struct{}, 1),
		refresh: make(chan struct{}, 1),
		done:    make(chan struct{}),
		tried:   make(chan struct{}),
	}
	_, _ = rand.Read(m.nonce[:]) // never fails
	m.ctx, m.cancel = context.WithCancel(context.Background())
	go m.run()
	return m
}

// Mapping returns the present mapping, or false if there is none.
func (m *Mapper) Mapping() (Mapping, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease == nil {
		return Mapping{}, false
	}
	return m.lease.Mapping, true
}

// Map waits for the result of the first request, and returns the mapping. It returns
// [ErrNone] if there is none, net.ErrClosed after Close, or ctx's error.
func (m *Mapper) Map(ctx context.Context) (Mapping, error) {
	select {
	case <-ctx.Done():
		return Mapping{}, ctx.Err()
	case <-m.ctx.Done():
		return Mapping{}, net.ErrClosed
	case <-m.tried:
	}
	if m.ctx.Err() != nil {
		return Mapping{}, net.ErrClosed
	}
	if mapping, ok := m.Mapping(); ok {
		return mapping, nil
	}
	return Mapping{}, ErrNone
}

// Changes returns a channel that gets a value when the external address has changed since
// the last value was read. It is closed when the mapper is closed.
func (m *Mapper) Changes() <-chan struct{} { return m.changes }

// Refresh asks the gateway again now. Call it after a change of the network.
func (m *Mapper) Refresh() {
	select {
	case m.refresh <- struct{}{}:
	default:
	}
}

// Close deletes the mapping and stops. It may be called several times.
func (m *Mapper) Close() error {
	m.cancel()
	<-m.done
	return nil
}
