package sni

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// maxAddrs is the number of addresses of an upstream that an attempt tries: one of each IP
// version.
const maxAddrs = 2

// plan is where an attempt goes.
type plan struct {
	route *Route
	tries []upstreamAddr // of the first upstream that has an address
	rest  []*upstream
	err   *refusal // or nil
}

// begin looks for an upstream of an attempt whose ClientHello is complete. It uses a goroutine
// only for what may take time: a Router, and names that have to be looked up.
func (sh *shard) begin(f *flow) {
	q := sh.relay
	h := f.conn.hello // no longer changes
	h.Client, h.Server = f.client, netip.AddrPortFrom(f.relay, sh.socket.LocalAddr().Port())
	h.QUICVersion = uint32(f.attempt.version)
	if !f.relay.IsValid() {
		h.Server = sh.socket.LocalAddr()
	}
	if q.conf.Router == nil {
		route := q.server.table.Load().find(&h)
		if route == nil || route.literal() {
			sh.opened(f, q.plan(context.Background(), route, nil))
			return
		}
	}
	sh.search(f, func(ctx context.Context) plan {
		route, err := q.server.route(ctx, &h, f.began.Add(q.conf.HelloTimeout))
		return q.plan(ctx, route, err)
	})
}

// search makes a plan for an attempt on a goroutine, which ends with the attempt.
func (sh *shard) search(f *flow, find func(ctx context.Context) plan) {
	q := sh.relay
	ctx, cancel := context.WithDeadline(q.server.closing, f.began.Add(q.conf.HelloTimeout))
	q.table.mu.Lock()
	f.cancel = cancel
	q.table.mu.Unlock()
	if f.ended.Load() {
		cancel()
		return
	}
	q.server.running.Go(func() {
		defer cancel()
		p := find(ctx)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.opened(f, p)
	})
}

// literal reports whether the route's upstreams are addresses, not names.
func (r *Route) literal() bool {
	for _, u := range r.pool.upstreams {
		if _, err := netip.ParseAddrPort(u.address); err != nil {
			return false
		}
	}
	return true
}

// plan returns where an attempt goes.
func (q *quicRelay) plan(ctx context.Context, route *Route, err error) plan {
	switch {
	case err != nil:
		return plan{err: &refusal{RouterRefused, err}}
	case route == nil || len(route.Upstreams) == 0:
		return plan{err: &refusal{NoRoute, errNoRoute}}
	case route.MaxConnections > 0 && route.pool.active.Load() >= int64(route.MaxConnections):
		return plan{route: route, err: &refusal{RouteFull, errors.New(route.name())}}
	}
	return q.planFor(ctx, route, route.pool.order(time.Now()))
}

// planFor looks up upstreams until one has an address.
func (q *quicRelay) planFor(ctx context.Context, route *Route, upstreams []*upstream) plan {
	last := errNoAnswer
	for i, u := range upstreams {
		addrs, err := q.resolve(ctx, u.address)
		if err == nil && len(addrs) > 0 {
			p := plan{route: route, rest: upstreams[i+1:]}
			for _, addr := range addrs {
				p.tries = append(p.tries, upstreamAddr{u, addr})
			}
			return p
		}
		if ctx.Err() != nil {
			last = ctx.Err() // not the upstream's fault
			break
		}
		last = err
		q.upstreamFailed(route, u, err)
	}
	return plan{route: route, err: &refusal{UpstreamFailed, last}}
}

// resolve returns the addresses of an upstream that are tried, one for each IP version.
func (q *quicRelay) resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	if addr, err := netip.ParseAddrPort(address); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, q.conf.DialTimeout)
	defer cancel()
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	resolver := q.conf.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	port, err := resolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	ips, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, ip := range ips {
		if ip = ip.Unmap(); len(out) == 0 || out[0].Addr().Is4() != ip.Is4() {
			out = append(out, netip.AddrPortFrom(ip, uint16(port)))
		}
		if len(out) == maxAddrs {
			break
		}
	}
	return out, nil
}

// opened goes on with an attempt when it is known where it goes. It may have ended meanwhile.
func (sh *shard) opened(f *flow, p plan) {
	q := sh.relay
	if f.ended.Load() {
		return
	}
	q.table.mu.Lock()
	f.cancel = nil
	f.conn.route = p.route
	q.table.mu.Unlock()
	switch {
	case p.err != nil && q.server.closing.Err() != nil:
		q.fail(f, ServerClosed, p.err)
	case p.err != nil:
		q.fail(f, p.err.reason, p.err.err)
	default:
		f.attempt.tries, f.attempt.rest = p.tries, p.rest
		sh.try(f)
	}
}

// try asks the next upstream of an attempt, and fails if there is none.
func (sh *shard) try(f *flow) {
	a := f.attempt
	for len(a.tries) > 0 {
		at := a.tries[0]
		a.tries = a.tries[1:]
		member, err := sh.connect(f, at)
		if err == nil {
			sh.sendHeld(f, member)
			return
		}
		switch {
		case f.ended.Load():
			return
		case errors.Is(err, net.ErrClosed):
			sh.relay.fail(f, ServerClosed, err)
			return
		}
		sh.relay.upstreamFailed(f.conn.route, at.upstream, err)
	}
	if len(a.rest) == 0 {
		sh.relay.fail(f, UpstreamFailed, errNoAnswer)
		return
	}
	route, rest := f.conn.route, a.rest
	a.rest = nil
	if route.literal() {
		sh.opened(f, sh.relay.planFor(context.Background(), route, rest))
		return
	}
	sh.search(f, func(ctx context.Context) plan { return sh.relay.planFor(ctx, route, rest) })
}

// connect opens the upstream socket of a flow.
func (sh *shard) connect(f *flow, at upstreamAddr) (*udp.Member, error) {
	member, err := sh.group.Dial(at.addr, f)
	if err != nil {
		return nil, err
	}
	if sh.relay.isSelf(at.addr, member.LocalAddr().Addr()) {
		member.Close()
		return nil, errLoop
	}
	t := sh.relay.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.ended.Load() {
		member.Close()
		return nil, net.ErrClosed
	}
	f.at, f.to = at, at.upstream
	if !f.moved {
		f.conn.at = at
	}
	f.to.active.Add(1)
	f.asked = time.Now()
	f.member.Store(member)
	return member, nil
}

// isSelf reports whether an address is that of one of the server's own sockets. local is the
// address from which packets to it are sent.
func (q *quicRelay) isSelf(addr netip.AddrPort, local netip.Addr) bool {
	for _, own := range q.addrs() {
		if own.Port() != addr.Port() {
			continue
		}
		if own.Addr() == addr.Addr() || own.Addr().IsUnspecified() && (addr.Addr() == local || addr.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}

// sendHeld sends an upstream what the client has sent so far.
func (sh *shard) sendHeld(f *flow, member *udp.Member) {
	a := f.attempt
	if !a.sent {
		a.sent = true
		datagrams := 0
		for i := range a.held {
			datagrams += a.held[i].Count()
		}
		f.fromClient.Add(uint64(a.size))
		sh.fromClients.add(uint64(datagrams), uint64(a.size))
	}
	if err := member.WriteBatch(a.held); err != nil && !errors.Is(err, net.ErrClosed) {
		sh.upstreamError(f, member, err)
	}
}

// upstreamError takes an error of a flow's upstream socket. An attempt goes to the next
// upstream. A flow whose upstream has answered before goes on: the upstream may come back.
func (sh *shard) upstreamError(f *flow, member *udp.Member, err error) {
	if f.ended.Load() || f.member.Load() != member || !dead(err) {
		return
	}
	if f.attempt == nil {
		if f.at.leftOut(time.Now()).IsZero() { // one failure, however many datagrams are lost
			sh.relay.upstreamFailed(f.conn.route, f.at.upstream, err)
		}
		return
	}
	sh.retry(f, err)
}

// retry leaves the upstream that an attempt has asked, and tries the next one. err is nil if
// the upstream is not to blame.
func (sh *shard) retry(f *flow, err error) {
	t := sh.relay.table
	t.mu.Lock()
	member, u := f.member.Swap(nil), f.to
	f.to = nil
	if u != nil {
		u.active.Add(-1)
	}
	t.mu.Unlock()
	if member != nil {
		member.Close()
	}
	if u != nil && err != nil {
		sh.relay.upstreamFailed(f.conn.route, u, err)
	}
	sh.try(f)
}

// upstreamFailed counts the failure of an upstream.
func (q *quicRelay) upstreamFailed(route *Route, u *upstream, err error) {
	if !local(err) {
		u.failed(time.Now())
	}
	q.counters.dialFailures.Add(1)
	q.server.logBeside(&q.upstreamLog, func() {
		q.server.log.Warn("an upstream does not answer QUIC", "route", route.name(), "upstream", u.address, "err", err)
	})
}
