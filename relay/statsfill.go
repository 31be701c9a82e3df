package relay

import "github.com/quicway/quicway/cid"

// StatsLimits are the limits of numbers in [Stats] that say how many exist now, by the same
// names. 0: nothing may exist, or the number is not known.
type StatsLimits struct {
	// Sessions is [Config.MaxSessions].
	Sessions int
	// Routes is how many IDs the [cid.MemoryStore] may have.
	Routes int
	// Offers is [Config.MaxOffers]. OfferBytes is 4 KiB for each of them, and at least
	// [Config.MaxOfferSize].
	Offers, OfferBytes int
	// TunnelConnections is [Config.MaxTunnels].
	TunnelConnections int
	// Connections is twice MaxSessions, and 4096 more.
	Connections int
	// Handshakes is the number from which all further clients get a Retry, and
	// RetriedHandshakes the number beyond which they are refused.
	Handshakes, RetriedHandshakes int
	// Listeners is [Config.MaxListeners]. Beyond it, and beyond Unauthenticated, the oldest
	// connection of the source or site with most of them makes room.
	Unauthenticated, Listeners int
	// Beyond HeldPackets the account with most loses some, or further ones are dropped. Beyond
	// WaitingWindows, [Stats].StoreErrors counts.
	HeldPackets, WaitingWindows int
}

// addFill adds what exists now, and its limits.
func (s *Server) addFill(out *Stats) {
	l := &out.Limits
	out.Sessions, out.Legs = s.sessions.count()
	l.Sessions = s.conf.MaxSessions
	if store, ok := s.conf.Store.(*cid.MemoryStore); ok {
		out.Routes, l.Routes = store.Len(), store.Cap()
	}
	out.Offers, out.OfferBytes = s.mailbox.fill()
	if s.mailbox.max > 0 {
		l.Offers, l.OfferBytes = s.mailbox.max, s.mailbox.maxBytes
	}
	out.Tunnels, out.TunnelConnections = s.tunnels.count()
	l.TunnelConnections = max(s.conf.MaxTunnels, 0)
	out.Connections, out.Handshakes, out.RetriedHandshakes = s.control.gate.count()
	l.Connections, l.Handshakes, l.RetriedHandshakes = s.control.gate.max, retryFrom, maxAnswered
	strangers, listeners := s.control.lobbies.unauthenticated, s.control.lobbies.listeners
	out.Unauthenticated, l.Unauthenticated = strangers.count(), strangers.max
	out.Listeners, l.Listeners = listeners.count(), listeners.max
	out.HeldPackets, l.HeldPackets = s.held.count(), maxHeld
	out.WaitingWindows, l.WaitingWindows = len(s.slider.hits), cap(s.slider.hits)
}

// fill returns how many offers there are, and how many bytes they have.
func (m *mailbox) fill() (offers, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shares.total, m.shares.bytes
}

// count returns the numbers of control connections, and of handshakes without and with a
// Retry token that are not complete.
func (g *gate) count() (connections, handshakes, retried int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, g.all[fresh], g.all[answered]
}

// count returns the number of connections in the lobby.
func (l *lobby) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// count returns the number of packets that are held.
func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.packets
}
