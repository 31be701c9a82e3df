package sni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quicway/quicway/internal/monotime"
)

const (
	// maxTries is the number of upstreams that a connection tries.
	maxTries = 3
	// An upstream that fails is left out for minBackoff, which doubles up to maxBackoff
	// while it fails again.
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// upstream is one of a route's servers.
type upstream struct {
	address string         // host:port
	literal netip.AddrPort // the same, if the host is an address, and not one of those with a meaning of their own
	active  atomic.Int64
	// answered is when the upstream last answered an attempt of QUIC, in ns since the epoch.
	answered atomic.Int64

	mu       sync.Mutex // guards the following
	failures uint64     // in a row
	until    time.Time  // left out until then
}

func newUpstreamOf(address string) *upstream {
	u := &upstream{address: address}
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Zone() == "" && !a.Addr().IsUnspecified() {
		u.literal = plain(a)
	}
	return u
}

// name returns host:port, or nothing if there is no upstream.
func (u *upstream) name() string {
	if u == nil {
		return ""
	}
	return u.address
}

// failed leaves the upstream out for a while.
func (u *upstream) failed(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	wait := maxBackoff
	if u.failures < 6 {
		wait = minBackoff << u.failures
	}
	u.failures++
	u.until = now.Add(wait)
}

func (u *upstream) worked() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures, u.until = 0, time.Time{}
}

// heard says that the upstream has answered an attempt of QUIC.
func (u *upstream) heard(now time.Time) {
	u.answered.Store(monotime.Of(now))
	u.worked()
}

// heardSince reports whether the upstream has answered an attempt of QUIC after t.
func (u *upstream) heardSince(t time.Time) bool { return u.answered.Load() > monotime.Of(t) }

// leftOut returns until when the upstream is left out; the zero time if it is not.
func (u *upstream) leftOut(now time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.until.After(now) {
		return u.until
	}
	return time.Time{}
}

// pool chooses upstreams.
type pool struct {
	balance   Balance
	upstreams []*upstream
	next      atomic.Uint64 // of RoundRobin
	active    atomic.Int64  // connections of the route
}

// order returns the upstreams in the order in which a connection should try them: those
// that are left out come last, the one that may come back first before the others.
func (p *pool) order(now time.Time) []*upstream {
	out := p.preferred()
	type state struct {
		*upstream
		until time.Time
	}
	states := make([]state, len(out))
	for i, u := range out {
		states[i] = state{u, u.leftOut(now)}
	}
	slices.SortStableFunc(states, func(a, b state) int { return a.until.Compare(b.until) })
	for i, s := range states {
		out[i] = s.upstream
	}
	return out[:min(len(out), maxTries)]
}

// preferred returns the upstreams in the order of the route's balance.
func (p *pool) preferred() []*upstream {
	n := len(p.upstreams)
	out := make([]*upstream, 0, n)
	if n == 0 {
		return out
	}
	first := int(p.next.Add(1)-1) % n
	if p.balance != RoundRobin {
		first = rand.IntN(n)
	}
	out = append(append(out, p.upstreams[first:]...), p.upstreams[:first]...)
	byActive := func(a, b *upstream) int { return cmp.Compare(a.active.Load(), b.active.Load()) }
	switch {
	case p.balance == LeastConnections:
		slices.SortStableFunc(out, byActive)
	case p.balance == RandomTwo && n > 1:
		second := 1 + rand.IntN(n-1)
		out[1], out[second] = out[second], out[1]
		if byActive(out[0], out[1]) > 0 {
			out[0], out[1] = out[1], out[0]
		}
	}
	return out
}

// dialer dials upstreams.
type dialer struct {
	net.Dialer
	timeout time.Duration
	// own is the address that the server listens on.
	own *net.TCPAddr
}

func newDialer(conf *Config, own *net.TCPAddr) *dialer {
	d := &dialer{timeout: conf.DialTimeout, own: own}
	d.Resolver = conf.Resolver
	d.SetMultipathTCP(false)
	return d
}

// dialError says that no upstream of a route has accepted a connection.
type dialError struct {
	address string // the upstream that was tried last
	err     error
}

func (e *dialError) Error() string { return fmt.Sprintf("upstream %s: %v", e.address, e.err) }

func (e *dialError) Unwrap() error { return e.err }

// tries are the upstreams that a connection has still to try, three at most in all.
type tries struct {
	left []*upstream
	// began is when the connection first tried one.
	began time.Time
	// since is when an attempt of the first of left began, if it has had no answer yet; or the
	// zero time.
	since time.Time
	// last is the failure of the one before; or nil.
	last *dialError
}

// tries returns the upstreams that a new connection tries. It takes the connection's turn.
func (p *pool) tries() *tries {
	now := time.Now()
	return &tries{left: p.order(now), began: now}
}

// failed goes on with the next upstream.
func (t *tries) failed(e *dialError) {
	t.left, t.since, t.last = t.left[1:], time.Time{}, e
}

// failure returns the failure of the last upstream.
func (t *tries) failure() error {
	if t.last == nil {
		return errNoRoute
	}
	return t.last
}

// dial returns a connection to one of the upstreams that are left. The caller takes one from
// upstream.active when the connection has ended. report gets the failure of each upstream.
func (d *dialer) dial(ctx context.Context, t *tries, report func(*dialError)) (*net.TCPConn, *upstream, error) {
	for len(t.left) > 0 {
		u := t.left[0]
		if t.since.IsZero() {
			t.since = time.Now()
		}
		u.active.Add(1)
		conn, err := d.dialOne(ctx, u.address, t.since.Add(d.timeout))
		if err == nil {
			u.worked()
			return conn, u, nil
		}
		if ctx.Err() != nil {
			u.active.Add(-1)
			return nil, nil, ctx.Err() // not the upstream's fault
		}
		t.failed(u.dialFailed(err))
		report(t.last)
	}
	return nil, nil, t.failure()
}

// dialFailed says that the upstream, which counts the attempt, has not accepted a connection.
func (u *upstream) dialFailed(err error) *dialError {
	u.active.Add(-1)
	if !local(err) {
		u.failed(time.Now())
	}
	return &dialError{u.address, err}
}

// local reports whether an error is about this host, and not about the upstream.
func local(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// dialOne dials an address. Another one than the first that a name has is tried as well.
func (d *dialer) dialOne(ctx context.Context, address string, deadline time.Time) (*net.TCPConn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	if d.isSelf(addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())) {
		return nil, errors.Join(errLoop, conn.Close())
	}
	return conn, nil
}

// isSelf reports whether a connection leads to the server's own listener.
func (d *dialer) isSelf(local, remote netip.AddrPort) bool {
	own := plain(d.own.AddrPort())
	if remote.Port() != own.Port() {
		return false
	}
	return remote.Addr() == own.Addr() || own.Addr().IsUnspecified() && (remote.Addr() == local.Addr() || remote.Addr().IsLoopback())
}
