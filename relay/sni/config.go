package sni

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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

	// HelloTimeout is the time in which a client has to send its ClientHello. 0 is
	// DefaultHelloTimeout.
	HelloTimeout time.Duration
	// DialTimeout is the time in which an upstream has to accept a connection. 0 is
	// DefaultDialTimeout. A connection tries three upstreams at most.
	DialTimeout time.Duration
	// IdleTimeout is the time after which a connection without new bytes in either
	// direction is reset. It may take a quarter longer. 0 is DefaultIdleTimeout;
	// negative: never.
	IdleTimeout time.Duration

	// MaxConnections bounds the connections of all clients. Others stay in the system's
	// queue of the listener. 0 is DefaultMaxConnections.
	MaxConnections int
	// MaxConnectionsPerSource bounds those of one source. Others are reset. 0 is
	// DefaultMaxConnectionsPerSource. It does not hold for the sources in ProxyFrom.
	MaxConnectionsPerSource int
	// MaxWaiting bounds the connections whose ClientHello is not complete. Each takes
	// up to 36 KiB. Beyond it the connection that has waited longest is reset. 0 is
	// DefaultMaxWaiting.
	MaxWaiting int
	// MaxWaitingPerSource bounds those of one source. Others are reset. 0 is
	// DefaultMaxWaitingPerSource. It does not hold for the sources in ProxyFrom.
	MaxWaitingPerSource int

	// ProxyFrom lists the load balancers in front of the relay, whose connections must
	// begin with a PROXY protocol header, version 1 or 2. The address in the header is
	// then that of the client. Headers from elsewhere are not read.
	ProxyFrom []netip.Prefix

	// Quota, if set, admits or refuses each connection by the client's address. The
	// server does not close the controller.
	Quota *quota.Controller

	// Resolver looks up the names of upstreams, each time that one is dialed. nil is
	// [net.DefaultResolver].
	Resolver *net.Resolver

	// Logger gets a line for each connection at [slog.LevelDebug], and warnings about
	// upstreams that fail, at most one a second for each message. nil discards them.
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
	setDefault(&out.MaxConnections, DefaultMaxConnections)
	setDefault(&out.MaxConnectionsPerSource, DefaultMaxConnectionsPerSource)
	setDefault(&out.MaxWaiting, DefaultMaxWaiting)
	setDefault(&out.MaxWaitingPerSource, DefaultMaxWaitingPerSource)
	out.Logger = ratelog.New(out.Logger)
	return out
}

func (c *Config) validate() error {
	for name, d := range map[string]time.Duration{"HelloTimeout": c.HelloTimeout, "DialTimeout": c.DialTimeout} {
		if d < 0 {
			return fmt.Errorf("%w: %s is %v, want a positive time", ErrConfig, name, d)
		}
	}
	for name, n := range map[string]int{
		"MaxConnections": c.MaxConnections, "MaxConnectionsPerSource": c.MaxConnectionsPerSource,
		"MaxWaiting": c.MaxWaiting, "MaxWaitingPerSource": c.MaxWaitingPerSource,
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
	return nil
}
