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
// A request over a connection of a [Transport] of this controller counts for the connection
// and for the source that it was admitted from. Any other request, as over HTTP/1 or HTTP/2,
// counts for the source of its RemoteAddr, and has no rate of its connection; so does a request
// whose context an http3.Server.ConnContext has replaced by one of no relation. A request without
// an address passes. Handler does not read Forwarded and X-Forwarded-For, since any client
// can set them: behind an HTTP proxy, all requests have the address of the proxy. Make that
// address shared ([Override]), and call [Controller.Request] with the address that the proxy
// reports.
//
// Handler belongs around everything, such as the [http.ServeMux]. For parts with limits of
// their own, see [Controller.Route].
func (c *Controller) Handler(next http.Handler) http.Handler {
	return &handler{c, c.takeRequest, next}
}

// handler limits the requests to another handler.
type handler struct {
	c    *Controller
	take func(client netip.Addr, slot *Slot) (wait time.Duration)
	next http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, slot := h.clientOf(r)
	if !client.IsValid() {
		h.next.ServeHTTP(w, r)
		return
	}
	if slot == nil && h.denied(client) {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	wait := h.take(client, slot)
	if wait <= 0 {
		h.next.ServeHTTP(w, r)
		return
	}
	seconds := (wait + time.Second - 1) / time.Second
	w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	http.Error(w, "too many requests", http.StatusTooManyRequests)
}

// clientOf returns the address of the client that has made a request, and the slot of its
// connection, or nil if that has none of this controller.
func (h *handler) clientOf(r *http.Request) (netip.Addr, *Slot) {
	if slot := SlotOf(r.Context()); slot != nil && slot.admission == h.c.admission {
		return slot.client, slot
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, nil
	}
	return h.c.conf.client(plainPort(from)), nil
}

// denied reports whether requests from an address are denied, and counts the request
// if so.
func (h *handler) denied(client netip.Addr) bool {
	c := h.c
	if c.lists.allows(client) || !c.lists.denies(client) {
		return false
	}
	c.refuseRequest(client, Denied)
	return !c.conf.DryRun
}

// Request charges a request to the source of an address, like [Controller.Handler]. It
// is for protocols other than HTTP. It returns 0 if the request may be made, or else
// how long to wait.
func (c *Controller) Request(addr netip.Addr) time.Duration {
	return c.takeRequest(plain(addr), nil)
}

// takeRequest charges a request to a source, and to the connection of slot unless it is nil.
func (c *Controller) takeRequest(client netip.Addr, slot *Slot) time.Duration {
	var connection *bucket
	if slot != nil {
		connection = &slot.requests
	}
	wait := c.rates.takeRequest(client, connection)
	if wait <= 0 {
		return 0
	}
	c.refuseRequest(client, RequestRate)
	if c.conf.DryRun {
		return 0
	}
	return time.Duration(wait)
}

// refuseRequest counts and reports a request of a client that is refused for a reason.
func (c *Controller) refuseRequest(client netip.Addr, why Reason) {
	at, now := c.sources.place(client), c.clock.now()
	at.shard.mu.Lock()
	c.reporter.unlock(at.shard, c.reporter.keptOutLocked(c.sources.lookupLocked(&at, now), Refuse, why, now))
	c.counters.attempt(why)
}
