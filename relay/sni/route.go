package sni

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/idna"
)

// Balance is how a route chooses one of its upstreams.
type Balance uint8

const (
	// RoundRobin takes the upstreams in turn.
	RoundRobin Balance = iota
	// LeastConnections takes the upstream with the fewest connections.
	LeastConnections
	// RandomTwo draws two upstreams and takes the one with fewer connections.
	RandomTwo

	numBalances
)

var balanceNames = [numBalances]string{"round-robin", "least-connections", "random-two"}

// String returns the name of the way to choose.
func (b Balance) String() string {
	if b < numBalances {
		return balanceNames[b]
	}
	return fmt.Sprintf("balance %d", uint8(b))
}

// Route says which upstreams some server names go to. After it was given to a server, it
// must not be changed; several servers may have the same Route.
type Route struct {
	// Name is the name of the route in logs, statistics and metrics. "" is the first of
	// Names.
	Name string

	// Names lists the server names: a name, "*." and a name for all names below it, "*"
	// for all, or "" for a ClientHello without a name. Upper and lower case are the
	// same. Names with letters beyond ASCII are converted (IDNA).
	Names []string
	// ALPN, if it is not empty, lists application protocols, such as "h2" or
	// "acme-tls/1". The client has to offer one of them.
	ALPN []string
	// NotTLS takes the streams that do not begin with a TLS record. Names and ALPN are
	// then about other streams. A protocol in which the server speaks first does not
	// get this far.
	NotTLS bool

	// Upstreams lists host:port of the servers, where a host is a name or an address. If
	// a name has several addresses, IPv6 and IPv4 are tried beside each other
	// (RFC 8305). If the list is empty, the route refuses its connections.
	Upstreams []string
	// Balance chooses one. An upstream that does not accept a connection is left out
	// for a second at first, and for a minute at most, while there are others.
	Balance Balance
	// SendProxy is the version of the PROXY protocol header that upstreams of TCP get, 1 or
	// 2. 0 means none. QUIC has no such header: the upstream sees the relay's address.
	SendProxy int
	// MaxConnections bounds the connections of the route, of TCP and QUIC together. Others
	// are refused. 0 means no limit but those of the server.
	MaxConnections int
	// Policy decides which connections of the route the kernel relays, if the server has a
	// [Splice]. nil is Splice.Policy, and [Never] leaves all in userspace.
	Policy Policy

	once sync.Once
	err  error
	pool pool
}

// name returns the name of the route.
func (r *Route) name() string {
	switch {
	case r.Name != "":
		return r.Name
	case len(r.Names) > 0:
		return r.Names[0]
	}
	return "not TLS"
}

// compile prepares the route when it is used for the first time.
func (r *Route) compile() error {
	r.once.Do(func() {
		r.err = r.validate()
		for _, address := range r.Upstreams {
			r.pool.upstreams = append(r.pool.upstreams, newUpstreamOf(address))
		}
		r.pool.balance = r.Balance
	})
	return r.err
}

func (r *Route) validate() error {
	for _, address := range r.Upstreams {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("%w: route %q: upstream %q, want host:port", ErrConfig, r.name(), address)
		}
		if n, err := strconv.Atoi(port); err == nil && (n < 1 || n > 65535) || errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%w: route %q: upstream %q, want a port of 1 to 65535", ErrConfig, r.name(), address)
		}
	}
	switch {
	case r.Balance >= numBalances:
		return fmt.Errorf("%w: route %q: unknown %v", ErrConfig, r.name(), r.Balance)
	case r.SendProxy < 0 || r.SendProxy > 2:
		return fmt.Errorf("%w: route %q: SendProxy is %d, want 0, 1 or 2", ErrConfig, r.name(), r.SendProxy)
	case r.MaxConnections < 0:
		return fmt.Errorf("%w: route %q: MaxConnections is %d, want 0 or more", ErrConfig, r.name(), r.MaxConnections)
	}
	return nil
}

// offered reports whether a client offers one of the route's protocols.
func (r *Route) offered(alpn []string) bool {
	return slices.ContainsFunc(r.ALPN, func(p string) bool { return slices.Contains(alpn, p) })
}

// table finds the route of a hello.
type table struct {
	all    []*Route
	routes map[string][]*Route // by key
	notTLS *Route
}

// keyAny is the key of the name "*".
const keyAny = "*"

func newTable(routes []*Route) (*table, error) {
	t := &table{all: slices.Clone(routes), routes: make(map[string][]*Route)}
	for i, r := range routes {
		if r == nil {
			return nil, fmt.Errorf("%w: route %d is nil", ErrConfig, i)
		}
		if err := r.compile(); err != nil {
			return nil, err
		}
		if err := t.add(r); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// add adds a route under its names.
func (t *table) add(r *Route) error {
	if len(r.Names) == 0 && !r.NotTLS {
		return fmt.Errorf("%w: route %q has neither Names nor NotTLS, so nothing gets to it", ErrConfig, r.name())
	}
	if r.NotTLS {
		if t.notTLS != nil {
			return fmt.Errorf("%w: routes %q and %q both have NotTLS", ErrConfig, t.notTLS.name(), r.name())
		}
		t.notTLS = r
	}
	for _, name := range r.Names {
		key, err := keyOf(name)
		if err == nil {
			err = clash(t.routes[key], r)
		}
		if err != nil {
			return fmt.Errorf("%w: name %q: %w", ErrConfig, name, err)
		}
		t.routes[key] = append(t.routes[key], r)
	}
	return nil
}

// keyOf returns the key of one of a route's names: the name in lower case, or for a
// wildcard what follows the "*".
func keyOf(name string) (string, error) {
	if name == "" || name == keyAny {
		return name, nil
	}
	rest, wild := strings.CutPrefix(name, "*.")
	key, err := idna.Lookup.ToASCII(strings.TrimSuffix(rest, "."))
	if err != nil || key == "" || strings.Contains(key, "*") {
		return "", fmt.Errorf("want a server name, *.name, * or nothing")
	}
	if wild {
		return "." + key, nil
	}
	return key, nil
}

// clash returns an error if a route would never be used behind others with its name.
func clash(routes []*Route, r *Route) error {
	for _, other := range routes {
		switch {
		case other == r:
			return fmt.Errorf("route %q has it twice", r.name())
		case len(other.ALPN) == 0 && len(r.ALPN) == 0:
			return fmt.Errorf("routes %q and %q have it, both without ALPN", other.name(), r.name())
		}
	}
	return nil
}

// find returns the route of a hello, or nil.
func (t *table) find(h *Hello) *Route {
	switch {
	case !h.TLS && h.QUICVersion != 0:
		return t.pick(keyAny, nil)
	case !h.TLS:
		return t.notTLS
	}
	if r := t.pick(h.ServerName, h.ALPN); r != nil {
		return r
	}
	for rest := h.ServerName; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return t.pick(keyAny, h.ALPN)
		}
		if r := t.pick(rest[dot:], h.ALPN); r != nil {
			return r
		}
		rest = rest[dot+1:]
	}
}

// pick returns the first route of a key with a protocol that the client offers, or the
// one without protocols, or nil.
func (t *table) pick(key string, alpn []string) (plain *Route) {
	for _, r := range t.routes[key] {
		if len(r.ALPN) == 0 {
			plain = r
		} else if r.offered(alpn) {
			return r
		}
	}
	return plain
}
