package monitor

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// snapshot returns a copy of a connection for callers, as it is at a time. seed is that of
// Community IDs.
func (c *connection) snapshot(now int64, seed uint16) Connection {
	gone := c.gone()
	out := Connection{
		UID:          c.origin.uid.String(),
		Number:       c.number,
		Confidence:   c.confidence,
		Evidence:     c.evidence,
		Version:      Version(c.version),
		VersionName:  Version(c.version).Name(),
		OriginalIDs:  texts(c.origIDs),
		ClientID:     c.origin.id(wire.Client),
		ServerID:     c.origin.id(wire.Server),
		TokenLength:  int(c.origin.token),
		ClientIDs:    texts(c.ids[wire.Client].list),
		ServerIDs:    texts(c.ids[wire.Server].list),
		Rotations:    int(c.rotations),
		FromClient:   gone.traffic[wire.Client],
		FromServer:   gone.traffic[wire.Server],
		PathsDropped: int(gone.paths),
		PathChanges:  slices.Clone(c.changes),

		PathChangesOmitted: int(gone.changes),

		Retries:      int(c.retries),
		Negotiations: int(c.negotiations),
		ZeroRTT:      int(c.zeroRTT),
		History:      c.history.String(),
		Glued:        int(c.glued),
		First:        timeOf(c.first),
		Last:         timeOf(c.last),
		Duration:     Milliseconds(c.last - c.first),
		Interface:    int(c.iface),
		Handshake:    c.handshakeRTT(),
	}
	out.State, out.Ended = c.state(now)
	for i := range out.PathChanges {
		out.PathChanges[i].Candidates = slices.Clone(out.PathChanges[i].Candidates)
	}
	if len(out.OriginalIDs) > 0 {
		out.OriginalID = out.OriginalIDs[0]
	}
	if c.direction != DirectionUnknown {
		out.Direction = c.direction.String()
	}
	for _, v := range c.seenVersions() {
		out.Versions = append(out.Versions, Version(v))
	}
	if c.tls != nil {
		out.TLS = *c.tls
		out.ALPN = slices.Clone(out.ALPN)
		out.PostQuantumGroups = slices.Clone(out.PostQuantumGroups)
		if c.userAgent != nil {
			out.UserAgent = *c.userAgent
		}
	}
	c.addPaths(&out, seed)
	return out
}

// addPaths adds copies of the paths to a connection for callers, and what follows from them.
func (c *connection) addPaths(out *Connection, seed uint16) {
	for _, p := range c.paths {
		s := p.snapshot(seed)
		s.Active = p == c.active
		if s.Active {
			out.SpinRTT, out.RTT = s.SpinRTT, s.RTT
		}
		out.Paths = append(out.Paths, s)
		out.FromClient.add(s.FromClient)
		out.FromServer.add(s.FromServer)
	}
	if len(out.Paths) > 0 {
		out.CommunityID = out.Paths[0].CommunityID
	}
}

// handshakeRTT returns the halves of the handshake's round trip that were seen.
func (c *connection) handshakeRTT() (out HandshakeRTT) {
	if c.answerAt > c.initialAt && c.initialAt > 0 {
		out.ServerSide = Milliseconds(c.answerAt - c.initialAt)
	}
	if c.confirmAt > c.answerAt && c.answerAt > 0 {
		out.ClientSide = Milliseconds(c.confirmAt - c.answerAt)
	}
	return out
}

func (t *Traffic) add(more Traffic) {
	t.Packets += more.Packets
	t.Bytes += more.Bytes
	t.ECN.add(more.ECN)
}

func (p *path) snapshot(seed uint16) Path {
	out := Path{
		Client:     p.client().AddrPort(),
		Server:     p.server().AddrPort(),
		Validated:  p.validated && p.sent[wire.Server].packets > 0,
		First:      timeOf(p.first),
		Last:       timeOf(max(p.seen(), p.first)),
		FromClient: p.sent[wire.Client].traffic(),
		FromServer: p.sent[wire.Server].traffic(),
		SpinRTT:    Milliseconds(p.spinRTT()),
		RTT:        p.rttStats(),
	}
	out.CommunityID = communityID(seed, protocolUDP, out.Client, out.Server)
	if out.SpinRTT != 0 {
		out.SpinServerSide = Milliseconds(p.sent[wire.Server].spin.half)
		out.SpinClientSide = Milliseconds(p.sent[wire.Client].spin.half)
	}
	return out
}

func (s *halfPath) traffic() Traffic { return Traffic{s.packets, s.bytes, s.ecn.get()} }

// spinRTT returns the round trip. Both directions measure the whole of it. The
// smaller value includes less waiting for something to send.
func (p *path) spinRTT() time.Duration {
	if !p.spins() {
		return 0
	}
	a, b := p.sent[wire.Client].spin.rtt(), p.sent[wire.Server].spin.rtt()
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timeOf returns a time of the packets' clock.
func timeOf(at int64) time.Time { return time.Unix(0, at).UTC() }

// moved returns the old and the new address of the side that has moved.
func moved(from, to *path) (netip.AddrPort, netip.AddrPort) {
	if from.server() != to.server() {
		return from.server().AddrPort(), to.server().AddrPort()
	}
	return from.client().AddrPort(), to.client().AddrPort()
}

func texts(ids []ID) (out []string) {
	for i := range ids {
		out = append(out, ids[i].String())
	}
	return out
}
