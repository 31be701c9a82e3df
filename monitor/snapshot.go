package monitor

import (
	"net/netip"
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// snapshot copies a record.
func (r *record) snapshot() Connection {
	c := Connection{
		Number:       r.number,
		Confidence:   r.confidence,
		Evidence:     r.evidence,
		Version:      Version(r.version),
		OriginalIDs:  texts(r.origIDs),
		ClientIDs:    texts(r.ends[wire.Client].ids),
		ServerIDs:    texts(r.ends[wire.Server].ids),
		Rotations:    int(r.rotations),
		PathChanges:  slices.Clone(r.changes),
		Retries:      int(r.retries),
		Negotiations: int(r.negotiations),
		ZeroRTT:      int(r.zeroRTT),
		Glued:        int(r.glued),
		First:        time.Unix(0, r.first).UTC(),
		Last:         time.Unix(0, r.last).UTC(),
		Interface:    r.iface,
		Handshake:    r.handshake(),
	}
	if len(c.OriginalIDs) > 0 {
		c.OriginalID = c.OriginalIDs[0]
	}
	if r.direction != DirectionUnknown {
		c.Direction = r.direction.String()
	}
	for _, v := range r.versions {
		c.Versions = append(c.Versions, Version(v))
	}
	if r.tls != nil {
		c.TLS = *r.tls
		c.ALPN = slices.Clone(c.ALPN)
		c.PostQuantumGroups = slices.Clone(c.PostQuantumGroups)
	}
	for _, p := range r.paths {
		s := p.snapshot()
		s.Active = p == r.active
		if s.Active {
			c.SpinRTT = s.SpinRTT
		}
		c.Paths = append(c.Paths, s)
		c.FromClient.add(s.FromClient)
		c.FromServer.add(s.FromServer)
	}
	return c
}

// handshake returns the halves of the round trip that were seen.
func (r *record) handshake() (out HandshakeRTT) {
	if r.answered > r.asked && r.asked > 0 {
		out.ServerSide = Milliseconds(r.answered - r.asked)
	}
	if r.concluded > r.answered && r.answered > 0 {
		out.ClientSide = Milliseconds(r.concluded - r.answered)
	}
	return out
}

func (t *Traffic) add(more Traffic) {
	t.Packets += more.Packets
	t.Bytes += more.Bytes
}

func (p *path) snapshot() Path {
	out := Path{
		Client:     p.client.AddrPort(),
		Server:     p.server.AddrPort(),
		Validated:  p.validated,
		First:      time.Unix(0, p.first).UTC(),
		Last:       time.Unix(0, max(p.ways[0].last, p.ways[1].last)).UTC(),
		FromClient: p.ways[wire.Client].traffic(),
		FromServer: p.ways[wire.Server].traffic(),
		SpinRTT:    Milliseconds(p.spinRTT()),
	}
	if out.SpinRTT != 0 {
		out.SpinServerSide = Milliseconds(p.ways[wire.Server].spin.half)
		out.SpinClientSide = Milliseconds(p.ways[wire.Client].spin.half)
	}
	return out
}

func (w *way) traffic() Traffic { return Traffic{w.packets, w.bytes} }

// spinRTT is the round trip that the two directions agree on: both see the
// whole of it, and the smaller has waited less for something to send.
func (p *path) spinRTT() time.Duration {
	a, b := p.ways[wire.Client].spin.rtt(), p.ways[wire.Server].spin.rtt()
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// moved returns the addresses of the side that differs between two paths.
func moved(from, to *path) (netip.AddrPort, netip.AddrPort) {
	if from.server != to.server {
		return from.server.AddrPort(), to.server.AddrPort()
	}
	return from.client.AddrPort(), to.client.AddrPort()
}

func texts(ids []ID) (out []string) {
	for i := range ids {
		out = append(out, ids[i].String())
	}
	return out
}
