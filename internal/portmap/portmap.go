// Package portmap asks the gateway of the local network to forward a UDP port: by
// PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD, all at once, and the first good
// answer counts. It believes only what the gateway itself says, and only about
// its own address. IPv4 only: a firewall for IPv6 is opened by sending.
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

// ErrNone: no gateway has mapped the port.
var ErrNone = errors.New("portmap: no gateway maps ports here")

const (
	defaultLifetime = time.Hour
	defaultTimeout  = 3 * time.Second
	minRenewal      = 4 * time.Second // RFC 6887 §11.2.1
	firstRetry      = time.Minute
	lastRetry       = time.Hour
)

// Protocol is what a mapping was made by.
type Protocol string

const (
	PCP    Protocol = "PCP"
	NATPMP Protocol = "NAT-PMP"
	UPnP   Protocol = "UPnP"
)

// Mapping is a port that a gateway forwards.
type Mapping struct {
	External netip.AddrPort // what others send to
	Lifetime time.Duration  // at most what was asked for
	Protocol Protocol
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// Private says whether the external address is not a public one: there is another
// NAT behind this one, and the mapping is good for those within it only.
func (m Mapping) Private() bool {
	a := m.External.Addr()
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// good says whether a gateway may have meant m.
func (m Mapping) good() bool {
	a := m.External.Addr()
	return m.External.Port() != 0 && a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && m.Lifetime > 0
}

// Config says how to ask. Its zero value, and nil, work.
type Config struct {
	// Lifetime is what to ask for. The default is an hour.
	Lifetime time.Duration
	// Timeout bounds each attempt, and Close. The default is 3 seconds.
	Timeout time.Duration
	// Gateway finds the gateway, and this host's address towards it. nil asks
	// the system, or guesses where that does not say.
	Gateway func() (gateway, local netip.Addr, err error)

	protocols []protocol // for tests; nil is all
}

// protocol asks once: to make or renew a mapping, or, for a lifetime of 0, to
// delete it. It returns when ctx is done.
type protocol func(ctx context.Context, r request) (Mapping, error)

type request struct {
	gateway, local netip.Addr
	port           uint16         // internal
	external       netip.AddrPort // the one to renew, or none
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
	tried   chan struct{} // closed when the first attempt is over
	attempt sync.Once
}

// lease is a mapping, and who can renew it.
type lease struct {
	Mapping
	expires  time.Time
	protocol protocol
	request  request
}

// New starts to map a port, and returns at once. The caller closes the mapper.
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

// Mapping returns the mapping that there is.
func (m *Mapper) Mapping() (Mapping, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease == nil {
		return Mapping{}, false
	}
	return m.lease.Mapping, true
}

// Map waits for the end of the first attempt, and returns the mapping. Returns
// [ErrNone] if there is none, net.ErrClosed after Close.
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

// Changes is readable when the external address has changed, or come or gone,
// since it was last read. It is closed with the mapper.
func (m *Mapper) Changes() <-chan struct{} { return m.changes }

// Refresh asks again now, because the network has changed.
func (m *Mapper) Refresh() {
	select {
	case m.refresh <- struct{}{}:
	default:
	}
}

// Close deletes the mapping and ends. It may be called again.
func (m *Mapper) Close() error {
	m.cancel()
	<-m.done
	return nil
}
