package p2p

import (
	"sync/atomic"
	"time"
)

// EndpointStats are the counters of an [Endpoint] since it was made, and its present numbers.
// A map has an entry for each of its keys. Nobody but the caller of NewEndpoint chooses keys,
// and addresses of relays: peers and relays cannot make the maps grow.
type EndpointStats struct {
	// Unsorted is the number of received packets that belong to no connection.
	Unsorted uint64
	// Unsent is the number of packets that the system did not send, for example
	// because there was no route.
	Unsent uint64
	// ReceiveOverflow is the number of packets that the system dropped because they
	// were not read in time, or 0 if the system does not count them.
	ReceiveOverflow uint64

	// Connections is the number of connections that exist, by the path that they use.
	Connections map[PathKind]int
	// Relays are the configured relays, each address once: those of [Config.Relay],
	// [Config.Relays] and [Config.RelaySource].
	Relays []RelayStats
	// OtherRelays is the number of connections through relays that are not configured,
	// because a peer or another relay has named them.
	OtherRelays int

	// RTT has smoothed round-trip times (RFC 9002 §5.3), by path. Each connection adds its
	// own once for each period of [Config.KeepAlive], more or less, and at its end.
	RTT map[PathKind]Times
	// TimeToDirect has the times from the end of the handshake to the first direct path.
	TimeToDirect Times
	// PathEvents counts what [Conn.PathEvents] yields, by reason: each connection begins
	// with one event, and each change of its path is one.
	PathEvents map[PathReason]uint64
	// Migrations counts migrations to a path of that kind, Direct or LAN.
	Migrations map[PathKind]uint64
	// Attempts, Fallbacks and RelayChanges are the sums of these fields of [Stats] over all
	// connections, also those that have ended.
	Attempts, Fallbacks, RelayChanges uint64

	// Dials counts the calls of [Endpoint.Dial] that have ended, by how: "connected", or the
	// reason why there is no connection. "closed" is ErrClosed, "peer_not_allowed" an
	// ErrPeerMismatch because of [Config.AllowPeer], "malformed" ErrMalformedOffer or
	// ErrMalformedRelay, "canceled" the caller's context, and "other" another error.
	// "peer_mismatch", "peer_refused", "peer_gone", "peer_absent", "no_direct_path",
	// "not_forwarded", "unauthorized", "relay_refused", "relay_not_allowed",
	// "relay_mismatch", "relay_unreachable", "offer_used" and "offer_expired" are the errors
	// with these names. A call with ErrConfig is not counted.
	Dials map[string]uint64
	// Offers counts in the same way the offers that this endpoint was to answer, from the
	// mailbox and by [Endpoint.AcceptOffer]. There are two more reasons: "busy" if so many
	// offers waited for being answered that this one was left in the mailbox, which shows it
	// again, and "not_accepted" if so many connections waited for a call of
	// [Endpoint.Accept] that this one was closed.
	Offers map[string]uint64
	// Ended counts connections that have ended, by how: "closed" by either side with code
	// 0, "application_error" with another code, "peer_gone", "peer_refused",
	// "no_direct_path" and "no_path" with these errors of [Conn.Err], "idle_timeout",
	// "stateless_reset" and "transport_error" as QUIC says, and "other".
	Ended map[string]uint64

	// Dialing is the number of calls of [Endpoint.Dial], Answering that of offers from the
	// mailbox that are being answered, Unaccepted that of connections that wait for a call
	// of [Endpoint.Accept], and UsedOffers that of offers that are remembered, so that none
	// is answered twice.
	Dialing, Answering, Unaccepted, UsedOffers int
	// Limits are the limits of these numbers.
	Limits EndpointLimits
}

// EndpointLimits are the limits of numbers in [EndpointStats]. They are fixed.
type EndpointLimits struct {
	Answering, Unaccepted, UsedOffers int
}

// RelayStats is what an endpoint knows of a configured relay.
type RelayStats struct {
	// Addr is its address, as in [Relay].
	Addr string
	// Connections is the number of connections whose packets go through the relay, or would
	// go without their direct path.
	Connections int
	// RTT is the round-trip time between this host and the relay. 0: not measured yet.
	RTT time.Duration
	// Draining says that the relay is about to stop, and Down that it cannot be used at
	// present ([RelayStatus.Err]). A relay that has not been tried yet is not down.
	Draining, Down bool
}

// endpointCounters are the counters of an endpoint. None of them is touched for a packet.
type endpointCounters struct {
	dials, offers              outcomes
	dialing                    atomic.Int64
	busy, notAccepted          atomic.Uint64
	ended                      [numEndings]atomic.Uint64
	events                     [numPathReasons]atomic.Uint64
	attempts, fallbacks, turns atomic.Uint64
	migrations                 [len(kindNames)]atomic.Uint64
	rtt                        [len(kindNames)]histogram
	timeToDirect               histogram
}

// Stats returns the counters of the endpoint. It visits all connections, and takes no lock
// that a packet needs.
func (e *Endpoint) Stats() EndpointStats {
	c := &e.counters
	out := EndpointStats{
		Unsorted:     e.mux.unsorted.Load(),
		Unsent:       e.mux.refused.Load(),
		RTT:          make(map[PathKind]Times),
		TimeToDirect: c.timeToDirect.times(),
		PathEvents:   make(map[PathReason]uint64),
		Migrations:   make(map[PathKind]uint64),
		Attempts:     c.attempts.Load(),
		Fallbacks:    c.fallbacks.Load(),
		RelayChanges: c.turns.Load(),
		Dials:        c.dials.all(),
		Offers:       c.offers.all(),
		Ended:        make(map[string]uint64),
		Dialing:      int(c.dialing.Load()),
		Answering:    e.mailbox.answering.count(),
		Unaccepted:   len(e.mailbox.accepted),
		UsedOffers:   e.used.len(),
		Limits:       EndpointLimits{Answering: maxAnswering, Unaccepted: acceptQueue, UsedOffers: maxUsedOffers},
	}
	for _, s := range e.mux.all() {
		out.ReceiveOverflow += s.Stats().RxOverflow
	}
	for k := range c.rtt {
		out.RTT[PathKind(k)] = c.rtt[k].times()
		if kind := PathKind(k); kind.isDirect() {
			out.Migrations[kind] = c.migrations[k].Load()
		}
	}
	for r := range c.events {
		out.PathEvents[PathReason(r)] = c.events[r].Load()
	}
	for i := range c.ended {
		out.Ended[endingNames[i]] = c.ended[i].Load()
	}
	out.Offers["busy"], out.Offers["not_accepted"] = c.busy.Load(), c.notAccepted.Load()
	e.countConns(&out)
	return out
}

// countConns adds the connections that exist, by path and by relay.
func (e *Endpoint) countConns(out *EndpointStats) {
	out.Connections = make(map[PathKind]int, len(kindNames))
	for k := range kindNames {
		out.Connections[PathKind(k)] = 0
	}
	byRelay := make(map[string]int)
	for _, p := range e.paths() {
		out.Connections[p.Kind]++
		byRelay[p.Relay]++
	}
	out.Relays = e.list.stats()
	for i := range out.Relays {
		r := &out.Relays[i]
		r.Connections = byRelay[r.Addr]
		delete(byRelay, r.Addr)
	}
	for _, n := range byRelay {
		out.OtherRelays += n
	}
}

// paths returns the paths of the connections that exist.
func (e *Endpoint) paths() []Path {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Path, 0, len(e.conns))
	for c := range e.conns {
		if c.Context().Err() == nil { // or else it only lingers
			p, _ := c.paths.latest()
			all = append(all, p)
		}
	}
	return all
}

// stats returns the configured relays, without their connections. Two with the same address
// are one: it is down if both are.
func (s *relayList) stats() []RelayStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []RelayStats
	index := make(map[string]int)
	for _, e := range s.entries {
		if !e.learned.IsZero() {
			continue
		}
		st := s.statusLocked(e, now)
		r := RelayStats{Addr: e.relay.Addr, RTT: st.RTT, Draining: st.Draining, Down: st.Err != nil}
		i, twice := index[r.Addr]
		switch {
		case !twice:
			index[r.Addr] = len(out)
			out = append(out, r)
		case out[i].Down:
			out[i] = r
		}
	}
	return out
}

// sampleRTT adds the connection's round-trip time to those of the endpoint.
func (c *Conn) sampleRTT() {
	if rtt := c.ConnectionStats().SmoothedRTT; rtt > 0 {
		c.endpoint.counters.rtt[c.paths.kind()].add(rtt)
	}
}
