package sni

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Drop is why a QUIC datagram of a client, or of an upstream, was not relayed.
type Drop uint8

const (
	// DropMalformed: a long header that is invalid, or a Version Negotiation packet of a
	// client.
	DropMalformed Drop = iota
	// DropVersion: a version that is not known, and there is no route "*" without ALPN.
	DropVersion
	// DropShortInitial: an Initial, or a first packet of an unknown version, in a datagram
	// of less than 1200 bytes, which a server must discard (RFC 9000 §14.1).
	DropShortInitial
	// DropUndecryptable: an Initial that cannot be decrypted.
	DropUndecryptable
	// DropUnknownID: a packet of a connection that is not known.
	DropUnknownID
	// DropHeld: more datagrams came before an upstream was found than are held.
	DropHeld
	// DropFull: a limit forbids the attempt or the connection, or the quota does.
	DropFull
	// DropAmplification: an upstream has sent more than three times as much as a client
	// that has not shown that it receives it.
	DropAmplification
	// DropHopLimit: the hop limit is used up, as in a loop of relays.
	DropHopLimit
	// DropClosing: an attempt after Server.Shutdown.
	DropClosing

	numDrops
)

var dropNames = [numDrops]string{
	"malformed", "version", "short_initial", "undecryptable", "unknown_id", "held", "full", "amplification", "hop_limit", "closing",
}

// String returns a name that is fit for the label of a metric.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return fmt.Sprintf("drop %d", uint8(d))
}

// MarshalText returns the name. JSON uses it for the keys of maps.
func (d Drop) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (d *Drop) UnmarshalText(text []byte) error {
	i := slices.Index(dropNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("sni: unknown drop %q", text)
	}
	*d = Drop(i)
	return nil
}

// QUICStats are the counters about QUIC since the server was made. The JSON names stay. Later
// versions may add fields.
type QUICStats struct {
	// Accepted counts attempts: connections whose first packet has come. Each of them is
	// relayed, or fails, or is among Waiting.
	Accepted uint64 `json:"accepted"`
	// Relayed counts connections whose client has shown that it receives what the upstream
	// sends.
	Relayed uint64 `json:"relayed"`
	// Failed counts the attempts that did not get that far, by reason. It has an entry for
	// each reason.
	Failed map[Failure]uint64 `json:"failed"`
	// Moved counts flows that were opened because a connection came from another address.
	Moved uint64 `json:"moved"`
	// Displaced counts relayed flows that made room for others, because somebody else may
	// have confirmed them.
	Displaced uint64 `json:"displaced"`
	// Idle counts relayed flows that ended by Config.QUICIdleTimeout.
	Idle uint64 `json:"idle"`
	// Flows is the number of flows that exist: connections at one address of their client.
	// Waiting is the number of those whose client has not confirmed its address.
	Flows   int `json:"flows"`
	Waiting int `json:"waiting"`
	// Datagrams and bytes that were relayed.
	DatagramsFromClients   uint64 `json:"datagrams_from_clients"`
	FromClients            uint64 `json:"from_clients"`
	DatagramsFromUpstreams uint64 `json:"datagrams_from_upstreams"`
	FromUpstreams          uint64 `json:"from_upstreams"`
	// Dropped counts datagrams that were not relayed, by reason. It has an entry for each
	// reason.
	Dropped map[Drop]uint64 `json:"dropped"`
	// Lost counts datagrams from clients that the system has dropped because they were not
	// read in time, and Refused those in either direction that it refused to send.
	Lost    uint64 `json:"lost"`
	Refused uint64 `json:"refused"`
	// DialFailures counts upstreams that were found not to answer.
	DialFailures uint64 `json:"dial_failures"`
	// UpstreamTime has the times from the complete ClientHello to the upstream's first
	// datagram.
	UpstreamTime Times `json:"upstream_time"`
}

// quicCounters are the counters of all shards.
type quicCounters struct {
	accepted, relayed, moved, displaced, idle, dialFailures atomic.Uint64
	failed                                                  [numFailures]atomic.Uint64
	dropped                                                 [numDrops]atomic.Uint64
	upstreamTime                                            histogram
}

func (c *quicCounters) drop(why Drop, datagrams int) { c.dropped[why].Add(uint64(datagrams)) }

// stats returns the counters.
func (q *quicRelay) stats() QUICStats {
	c := &q.counters
	flows, waiting := q.table.count()
	out := QUICStats{
		Accepted: c.accepted.Load(), Relayed: c.relayed.Load(), Failed: make(map[Failure]uint64), Moved: c.moved.Load(), Displaced: c.displaced.Load(),
		Idle: c.idle.Load(), Flows: flows, Waiting: waiting, Dropped: make(map[Drop]uint64),
		DialFailures: c.dialFailures.Load(), UpstreamTime: c.upstreamTime.times(),
	}
	for f := range numFailures {
		out.Failed[f] = c.failed[f].Load()
	}
	for d := range numDrops {
		out.Dropped[d] = c.dropped[d].Load()
	}
	for _, sh := range q.shards {
		out.DatagramsFromClients += sh.fromClients.datagrams.Load()
		out.FromClients += sh.fromClients.bytes.Load()
		out.DatagramsFromUpstreams += sh.fromUpstreams.datagrams.Load()
		out.FromUpstreams += sh.fromUpstreams.bytes.Load()
		socket, group := sh.socket.Stats(), sh.group.Stats()
		out.Lost += socket.RxOverflow
		out.Refused += socket.TxErrors + group.TxErrors
	}
	return out
}

// connections returns the flows as connections.
func (q *quicRelay) connections() []Connection {
	q.table.mu.Lock()
	defer q.table.mu.Unlock()
	var out []Connection
	for _, f := range q.table.listLocked() {
		h := &f.conn.hello
		c := Connection{
			Network: "udp", Client: f.client, ServerName: h.ServerName, ALPN: append([]string(nil), h.ALPN...), ECH: h.ECH,
			Began: f.began, FromClient: f.fromClient.Load(), FromUpstream: f.fromUpstream.Load(),
		}
		if f.conn.route != nil {
			c.Route = f.conn.route.name()
		}
		if f.member.Load() != nil {
			c.Upstream = f.conn.at.addr.String()
		}
		out = append(out, c)
	}
	return out
}
