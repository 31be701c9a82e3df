package quota

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Handler passes requests on to another handler, as fast as their sources and
// connections may make them. What is beyond that is answered with 429 (Too Many
// Requests, RFC 6585 §4) and a Retry-After; and who is denied, where no packet
// filter keeps it out, with 403.
//
// The source is that of the connection's slot, if it is one of a protected
// transport, and else the request's RemoteAddr, so that it serves HTTP/1 and 2 as
// well, without a rate per connection. What has no address passes. Forwarded and
// X-Forwarded-For are not read, since anybody can write them: behind a proxy all
// requests are the proxy's. Make it exempt ([Override]), and charge
// [Controller.Request] with the address that it vouches for.
func (c *Controller) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, slot := peerOf(r)
		if !addr.IsValid() {
			next.ServeHTTP(w, r)
			return
		}
		if slot == nil && c.forbids(addr) {
			http.Error(w, "denied", http.StatusForbidden)
			return
		}
		wait := c.takeRequest(addr, slot)
		if wait <= 0 {
			next.ServeHTTP(w, r)
			return
		}
		seconds := (wait + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
		http.Error(w, "too many requests", http.StatusTooManyRequests)
	})
}

// peerOf is who has made a request, and on which connection, if that has a slot.
func peerOf(r *http.Request) (netip.Addr, *Slot) {
	if slot := SlotOf(r.Context()); slot != nil {
		return slot.remote.Addr(), slot
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, nil
	}
	return plain(from.Addr()), nil
}

// forbids says whether an address is denied, and counts that.
func (c *Controller) forbids(addr netip.Addr) bool {
	if c.lists.allows(addr, c.conf.Now) || !c.lists.denies(addr, c.conf.Now) {
		return false
	}
	now, sh := c.now(), c.shardOf(addr)
	sh.mu.Lock()
	e, due := c.noteLocked(c.lookup(sh, addr, now), addr, Refuse, Denied, true, now)
	sh.mu.Unlock()
	if due {
		c.report(e)
	}
	c.counters.attempt(Denied)
	return !c.conf.DryRun
}

// Request charges a request to the source of an address, as [Controller.Handler]
// does, for whatever is no HTTP. It returns 0 if there may be one now, and else
// how long until there may be.
func (c *Controller) Request(addr netip.Addr) time.Duration {
	return c.takeRequest(plain(addr), nil)
}

// takeRequest charges a request to all levels, and to the connection with a slot,
// if all have room for it.
func (c *Controller) takeRequest(addr netip.Addr, slot *Slot) time.Duration {
	now := c.now()
	if c.lists.allows(addr, c.conf.Now) {
		return 0
	}
	sh := c.shardOf(addr)
	sh.mu.Lock()
	s := c.lookup(sh, addr, now)
	wait := c.requestWaitLocked(s, slot, now)
	if wait <= 0 {
		c.chargeRequestLocked(s, slot, now)
	}
	e, due := c.noteLocked(s, addr, Refuse, RequestRate, wait > 0, now)
	sh.mu.Unlock()
	if due {
		c.report(e)
	}
	if wait <= 0 {
		return 0
	}
	c.counters.attempt(RequestRate)
	if c.conf.DryRun {
		return 0
	}
	return time.Duration(wait)
}

// requestWaitLocked is how long until a request may be made.
func (c *Controller) requestWaitLocked(s *source, slot *Slot, now instant) instant {
	if s != nil && s.limits.exempt {
		return 0
	}
	var wait instant
	if slot != nil {
		wait = c.request.wait(slot.requests, now)
	}
	s.levels(func(l *level) bool {
		wait = max(wait, l.limits.request.wait(l.request, now))
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(wait, c.total.limits.request.wait(c.total.request, now))
}

func (c *Controller) chargeRequestLocked(s *source, slot *Slot, now instant) {
	if slot != nil {
		c.request.take(&slot.requests, now)
	}
	s.levels(func(l *level) bool {
		l.limits.request.take(&l.request, now)
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.limits.request.take(&c.total.request, now)
}
