package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Timing of dialing a name with several addresses (RFC 8305 §8).
const (
	// attemptDelay is the time between two attempts.
	attemptDelay = 250 * time.Millisecond
	// resolutionDelay is how long IPv4 addresses wait for IPv6 ones.
	resolutionDelay = 50 * time.Millisecond
	// lookupPatience is how long a resolver may take if addresses are known from the
	// last lookup.
	lookupPatience = 2 * time.Second
)

// maxRelayAddrs bounds the addresses of one relay that are tried.
const maxRelayAddrs = 16

// lookupResult is the result of the lookup of one address family.
type lookupResult struct {
	network string
	addrs   []netip.AddrPort
	err     error
}

// dial connects to the relay at the first of its addresses that answers, IPv4 or IPv6
// (Happy Eyeballs, RFC 8305). It looks the name up each time. If that fails, it tries the
// addresses of the last lookup. timeout bounds the attempt at each address.
// If UDP does not reach the relay in time, it tries a tunnel as well.
func (c *relayClient) dial(ctx context.Context, timeout time.Duration) (*controlConn, error) {
	return c.dialBy(ctx, timeout, c.endpoint.tunnels())
}

// dialBy is dial, with or without tunnels.
func (c *relayClient) dialBy(ctx context.Context, timeout time.Duration, tunnels bool) (*controlConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	lookups, count := c.relay.lookups(ctx, c.endpoint)
	r := &race{client: c, timeout: timeout, pending: count, began: time.Now(), results: make(chan dialResult, maxRelayAddrs+1)}
	if tunnels {
		r.tunnelDue = r.began.Add(tunnelDelay)
		if timeout < connectTimeout { // UDP has worked, but is silent now
			r.tunnelDue = r.began.Add(attemptDelay)
		}
	}
	defer r.end(cancel)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for r.pending > 0 || !r.over() {
		timer.Reset(r.wait(time.Now()))
		select {
		case f := <-lookups:
			r.resolved(f, time.Now())
		case <-timer.C:
			r.next(ctx, time.Now())
		case a := <-r.results:
			r.running--
			if a.err == nil {
				r.won = a.addr
				c.moved(a.addr)
				return a.conn, nil
			}
			r.errs = append(r.errs, a.err)
			r.due = time.Now() // for the next one (RFC 8305 §5)
			if r.running == 0 && len(r.waiting) == 0 && !r.tunnelDue.IsZero() {
				r.tunnelDue = time.Now()
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, r.failure(c.relay.Addr)
}

// dialResult is the result of dialing one address.
type dialResult struct {
	addr netip.AddrPort
	conn *controlConn
	err  error
}

// race dials the addresses of a relay until one answers.
type race struct {
	client  *relayClient
	timeout time.Duration    // of an attempt
	addrs   []netip.AddrPort // all
	waiting []netip.AddrPort // not dialed yet
	tried   []netip.AddrPort // dialed
	running int              // the number of attempts under way
	pending int              // the number of lookups under way
	began   time.Time        // when the lookups did
	due     time.Time        // when the next address is to be dialed
	results chan dialResult
	errs    []error
	lookup  error // of the lookups
	fresh   bool  // addrs are from this lookup, not from the last one
	won     netip.AddrPort

	tunnelDue time.Time      // when a tunnel is to be tried; zero: not, or it has been
	tunnel    netip.AddrPort // the address of the tunnel that has been tried
}

// wait is how long until next is to be called.
func (r *race) wait(now time.Time) time.Duration {
	wait := r.waitUDP(now)
	if !r.tunnelDue.IsZero() {
		wait = min(wait, max(r.tunnelDue.Sub(now), 0))
	}
	return wait
}

func (r *race) waitUDP(now time.Time) time.Duration {
	switch {
	case len(r.waiting) > 0:
		return max(r.due.Sub(now), 0)
	case len(r.addrs) == 0 && len(r.client.known) > 0:
		return max(r.began.Add(lookupPatience).Sub(now), 0)
	}
	return time.Hour
}

// resolved takes the result of a lookup.
func (r *race) resolved(f lookupResult, now time.Time) {
	r.pending--
	if f.err != nil {
		r.lookup = f.err
	}
	r.add(f.addrs)
	r.fresh = r.fresh || len(f.addrs) > 0
	switch {
	case r.running > 0:
	case r.pending > 0 && f.network == "ip4":
		r.due = now.Add(resolutionDelay) // IPv6 may come in a moment
	default:
		r.due = now
	}
	if r.pending == 0 && len(r.addrs) == 0 {
		r.add(r.client.known)
	}
}

// add adds addresses to dial.
func (r *race) add(addrs []netip.AddrPort) {
	for _, a := range addrs {
		if err := r.client.mayReach(a); err != nil {
			r.errs = append(r.errs, err)
			continue
		}
		if len(r.addrs) < maxRelayAddrs && !slices.Contains(r.addrs, a) {
			r.addrs = append(r.addrs, a)
			r.waiting = append(r.waiting, a)
		}
	}
	r.waiting = interleave(r.waiting, r.client.address())
}

// interleave puts the address that worked last first. After it the families alternate, as
// in RFC 8305 §4. The order within a family is kept.
func interleave(addrs []netip.AddrPort, last netip.AddrPort) []netip.AddrPort {
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.AddrPort) int {
		return cmp.Compare(rank(a == last), rank(b == last))
	})
	if len(addrs) == 0 {
		return addrs
	}
	first, rest := []netip.AddrPort(nil), []netip.AddrPort(nil)
	for _, a := range addrs {
		if a.Addr().Is4() == addrs[0].Addr().Is4() {
			first = append(first, a)
		} else {
			rest = append(rest, a)
		}
	}
	out := addrs[:0]
	for i := range max(len(first), len(rest)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(rest) {
			out = append(out, rest[i])
		}
	}
	return out
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// next does what is due: it dials the next address, or tries a tunnel. If the resolver takes
// too long, the address is one of the last lookup.
func (r *race) next(ctx context.Context, now time.Time) {
	if r.waitUDP(now) <= 0 {
		r.nextUDP(ctx, now)
	}
	if !r.tunnelDue.IsZero() && !r.tunnelDue.After(now) {
		r.nextTunnel(ctx, now)
	}
}

// nextTunnel tries a tunnel, as soon as there is an address, or the lookups have ended: a
// proxy may find the relay by its name.
func (r *race) nextTunnel(ctx context.Context, now time.Time) {
	if len(r.addrs) == 0 && r.pending > 0 {
		r.tunnelDue = now.Add(attemptDelay)
		return
	}
	mux, at := r.client.endpoint.mux, slices.Clone(r.addrs)
	addr := mux.reserveTunnel()
	r.tunnelDue, r.tunnel = time.Time{}, addr
	r.running++
	mux.addControl(addr, r.client)
	go func() {
		conn, err := r.client.dialTunnel(ctx, addr, at)
		r.results <- dialResult{addr, conn, err}
	}()
}

func (r *race) nextUDP(ctx context.Context, now time.Time) {
	if len(r.addrs) == 0 {
		r.add(r.client.known)
	}
	if len(r.waiting) == 0 {
		return
	}
	addr := r.waiting[0]
	r.waiting = r.waiting[1:]
	r.tried = append(r.tried, addr)
	r.running++
	r.due = now.Add(attemptDelay)
	r.client.endpoint.mux.addControl(addr, r.client)
	go func() {
		l, err := r.client.dialAddr(ctx, addr, r.timeout)
		r.results <- dialResult{addr, l, err}
	}()
}

// over says whether all addresses have failed, and the tunnel.
func (r *race) over() bool { return r.running == 0 && len(r.waiting) == 0 && r.tunnelDue.IsZero() }

// end cancels the attempts that have not won.
func (r *race) end(cancel context.CancelFunc) {
	cancel()
	for ; r.running > 0; r.running-- {
		if a := <-r.results; a.conn != nil {
			a.conn.close()
			if a.conn.tunnel != nil {
				r.client.endpoint.mux.closeTunnel(a.conn.tunnel)
			}
		}
	}
	for _, a := range append(r.tried, r.tunnel) {
		if a != r.won {
			r.client.endpoint.mux.removeControl(a, r.client)
		}
	}
	r.client.tried = len(r.tried) > 0
	if r.fresh {
		r.client.known = r.addrs
	}
}

// failure returns why no address has worked. ErrRelayMismatch comes first: a wrong answer
// says more than silence.
func (r *race) failure(name string) error {
	for _, err := range r.errs {
		if errors.Is(err, ErrRelayMismatch) {
			return err
		}
	}
	switch {
	case len(r.errs) > 0:
		return errors.Join(r.errs...)
	case r.lookup != nil:
		return fmt.Errorf("%w: %w", ErrRelayUnreachable, r.lookup)
	}
	return fmt.Errorf("%w: no socket for the addresses of %s", ErrRelayUnreachable, name)
}
