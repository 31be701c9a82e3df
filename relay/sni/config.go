package sni

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/quota"
)

// Defaults of Config.
const (
	DefaultHelloTimeout            = 10 * time.Second
	DefaultDialTimeout             = 5 * time.Second
	DefaultIdleTimeout             = 10 * time.Minute
	DefaultMaxConnections          = 65536
	DefaultMaxConnectionsPerSource = 1024
	DefaultMaxWaiting              = 4096
	DefaultMaxWaitingPerSource     = 256
	DefaultQUICIdleTimeout         = 2 * time.Minute
)

// Config configures a [Server]. The zero value refuses all connections, since it has no
// routes.
type Config struct {
	// Routes lists the routes. [Server.SetRoutes] replaces them. The server keeps the
	// pointers: the caller must not change a Route any more.
	Routes []*Route

	// Router, if set, is asked before Routes. It returns a route, nil to use Routes, or
	// an error to refuse the connection. It should return the same *Route for the same
	// upstreams, because a Route remembers which of its upstreams fail. Calls are
	// concurrent. They count for HelloTimeout, at whose end ctx is done.
	Router func(ctx context.Context, hello *Hello) (*Route, error)

	// HelloTimeout is the time in which a client has to send its ClientHello. A QUIC client
	// has the same time once more, to show that it receives what the upstream sends. 0 is
	// DefaultHelloTimeout.
	HelloTimeout time.Duration
	// DialTimeout is the time in which an upstream has to accept a connection, or to answer
	// a QUIC client. 0 is DefaultDialTimeout. A connection tries three upstreams at most.
	DialTimeout time.Duration
	// IdleTimeout is the time after which a TCP connection without new bytes in either
	// direction is reset. It may take a quarter longer. 0 is DefaultIdleTimeout;
	// negative: never.
	IdleTimeout time.Duration
	// QUICIdleTimeout is the time after which the relay forgets a QUIC connection without
	// datagrams in either direction. It should be longer than what clients and servers
	// agree on, which is often 30 s: the relay does not see how a connection ends. It may
	// take a second longer. 0 is DefaultQUICIdleTimeout.
	QUICIdleTimeout time.Duration

	// The following limits hold for TCP, and once more for QUIC: whoever forges the source
	// addresses of datagrams cannot lock out clients of TCP.

	// MaxConnections bounds the connections of all clients. Further ones of TCP stay in
	// the system's queue of the listener, and datagrams of further ones of QUIC are
	// dropped. A QUIC connection counts when its client has shown that it receives what
	// the upstream sends, and once for each of the client's addresses. Each takes a UDP
	// port and a file descriptor, also while it is waiting: MaxConnections and MaxWaiting
	// together should not be above the system's numbers of both (on Linux 28 000 ports by
	// default, net.ipv4.ip_local_port_range, and ulimit -n). 0 is DefaultMaxConnections.
	MaxConnections int
	// MaxConnectionsPerSource bounds those of one source. Others are reset, and those of
	// QUIC dropped. 0 is DefaultMaxConnectionsPerSource. It does not hold for the sources
	// in ProxyFrom.
	MaxConnectionsPerSource int
	// MaxWaiting bounds the connections whose ClientHello is not complete, and those of
	// QUIC whose client has not yet shown that it receives what the upstream sends. Each
	// takes up to 40 KiB. Beyond it the connection that has waited longest is reset, or
	// forgotten if it is one of QUIC. 0 is DefaultMaxWaiting.
	MaxWaiting int
	// MaxWaitingPerSource bounds those of one source. Others are reset; with QUIC the one
	// that has waited longest makes room. 0 is DefaultMaxWaitingPerSource. It does not
	// hold for the sources in ProxyFrom.
	MaxWaitingPerSource int

	// Shards is how many UDP sockets [Listen] opens with SO_REUSEPORT. Each has two
	// goroutines that relay its datagrams. 0 means one for each CPU if the system can do
	// that, and one otherwise. [New] ignores it.
	Shards int

	// ProxyFrom lists the load balancers in front of the relay, whose TCP connections must
	// begin with a PROXY protocol header, version 1 or 2. The address in the header is
	// then that of the client. Headers from elsewhere are not read.
	ProxyFrom []netip.Prefix

	// Splice, if set, lets the kernel relay connections that are worth it. nil means that
	// all connections stay in userspace. It is about TCP.
	Splice *Splice

	// Quota, if set, admits or refuses each connection by the client's address. A QUIC
	// connection is half open until its client has shown that it receives what the upstream
	// sends. The server does not close the controller.
	Quota *quota.Controller

	// Resolver looks up the names of upstreams, each time that one is dialed. nil is
	// [net.DefaultResolver].
	Resolver *net.Resolver

	// Logger gets a line for each connection at [slog.LevelDebug], and warnings about
	// upstreams that fail, at most one a second for each message. A log that blocks holds up
	// QUIC at LevelDebug, and nothing without it. nil discards them.
	Logger *slog.Logger
}

func setDefault[T comparable](v *T, def T) {
	if zero := *new(T); *v == zero {
		*v = def
	}
}

func (c *Config) withDefaults() *Config {
	out := &Config{}
	if c != nil {
		*out = *c
	}
	setDefault(&out.HelloTimeout, DefaultHelloTimeout)
	setDefault(&out.DialTimeout, DefaultDialTimeout)
	setDefault(&out.IdleTimeout, DefaultIdleTimeout)
	setDefault(&out.QUICIdleTimeout, DefaultQUICIdleTimeout)
	setDefault(&out.MaxConnections, DefaultMaxConnections)
	setDefault(&out.MaxConnectionsPerSource, DefaultMaxConnectionsPerSource)
	setDefault(&out.MaxWaiting, DefaultMaxWaiting)
	setDefault(&out.MaxWaitingPerSource, DefaultMaxWaitingPerSource)
	out.ProxyFrom = slices.Clone(out.ProxyFrom)
	for i, p := range out.ProxyFrom {
		out.ProxyFrom[i] = unmapped(p)
	}
	out.Splice = out.Splice.withDefaults()
	out.Logger = ratelog.New(out.Logger)
	return out
}

// unmapped returns a prefix of which IPv4 is not mapped into IPv6, as the addresses are that it is
// compared with.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func (c *Config) validate() error {
	for name, d := range map[string]time.Duration{
		"HelloTimeout": c.HelloTimeout, "DialTimeout": c.DialTimeout, "QUICIdleTimeout": c.QUICIdleTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%w: %s is %v, want a positive time", ErrConfig, name, d)
		}
	}
	for name, n := range map[string]int{
		"MaxConnections": c.MaxConnections, "MaxConnectionsPerSource": c.MaxConnectionsPerSource,
		"MaxWaiting": c.MaxWaiting, "MaxWaitingPerSource": c.MaxWaitingPerSource, "Shards": c.Shards,
	} {
		if n < 0 {
			return fmt.Errorf("%w: %s is %d, want a positive number", ErrConfig, name, n)
		}
	}
	for _, p := range c.ProxyFrom {
		if !p.IsValid() {
			return fmt.Errorf("%w: ProxyFrom has an invalid prefix", ErrConfig)
		}
	}
	return c.Splice.validate()
}
