package quota

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Handler passes requests to next at the rates that their sources and connections
// have. It answers those beyond a rate with 429 (Too Many Requests, RFC 6585 §4) and a
// Retry-After field. It answers requests from denied addresses with 403, which a packet
// filter below would have dropped.
//
// A request over a protected transport counts for its connection and for the source
// that the connection was admitted from. Any other request, as over HTTP/1 or HTTP/2,
// counts for the source of its RemoteAddr, and has no rate of its connection. A request
// without an address passes. Handler does not read Forwarded and X-Forwarded-For, since
// any client can set them: behind a proxy, all requests have the address of the proxy.
// Make the proxy exempt ([Override]) and call [Controller.Request] with the address
// that it reports.
func (c *Controller) Handler(next http.Handler) http.Handler { return &handler{c, next} }

type handler struct {
	c    *Controller
	next http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	addr, slot := peerOf(r)
	if !addr.IsValid() {
		h.next.ServeHTTP(w, r)
		return
	}
	if slot == nil && h.denied(addr) {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	wait := h.c.takeRequest(addr, slot)
	if wait <= 0 {
		h.next.ServeHTTP(w, r)
		return
	}
	seconds := (wait + time.Second - 1) / time.Second
	w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	http.Error(w, "too many requests", http.StatusTooManyRequests)
}

// peerOf returns the address that a request came from, and the slot of its connection,
// or nil if that has none.
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

// denied reports whether requests from an address are denied, and counts the request
// if so.
func (h *handler) denied(addr netip.Addr) bool {
	c := h.c
	if c.lists.allows(addr) || !c.lists.denies(addr) {
		return false
	}
	at, now := c.sources.place(addr), c.clock.now()
	at.shard.mu.Lock()
	c.reporter.unlock(at.shard, c.reporter.keptOutLocked(c.sources.lookupLocked(&at, now), Refuse, Denied, now))
	c.counters.attempt(Denied)
	return !c.conf.DryRun
}

// Request charges a request to the source of an address, like [Controller.Handler]. It
// is for protocols other than HTTP. It returns 0 if the request may be made, or else
// how long to wait.
func (c *Controller) Request(addr netip.Addr) time.Duration {
	return c.takeRequest(plain(addr), nil)
}

func (c *Controller) takeRequest(addr netip.Addr, slot *Slot) time.Duration {
	wait := c.rates.takeRequest(addr, slot)
	if wait <= 0 {
		return 0
	}
	c.counters.attempt(RequestRate)
	if c.conf.DryRun {
		return 0
	}
	return time.Duration(wait)
}
