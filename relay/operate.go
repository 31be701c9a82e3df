package relay

import (
	"encoding/hex"
	"iter"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Session describes a session at one moment.
type Session struct {
	// ID is the session's ID, as in the log.
	ID string
	// Account is the tag of the account that opened the session, as
	// [Server.AccountTag] returns it. The server does not keep the account's name.
	Account string
	// Legs are the dialer's leg and the accepter's leg.
	Legs [2]Leg
}

// Leg describes one end of a [Session].
type Leg struct {
	// Remote is the address of the peer. If it is the zero AddrPort, the leg is not
	// registered, and the other fields are zero.
	Remote netip.AddrPort
	// Tunneled says that the peer is reached through a tunnel ([Server.ServeTCP]). Remote
	// is then the address of the TCP connection.
	Tunneled bool
	// Connected says whether the control connection is alive that registered or
	// refreshed the leg last.
	Connected bool
	// Heard is when the last packet came from the leg. It is exact to a second for
	// packets that the kernel has forwarded. Zero: no packet has come.
	Heard time.Time
	// Expires is when the leg expires if it is not refreshed and sends no packet
	// until then.
	Expires time.Time
}

// Sessions yields the sessions that exist now, in no order, also those whose packets only
// the kernel sees ([Config.XDP]). Sessions that are opened or end meanwhile may be
// missing. The loop body may end sessions.
func (s *Server) Sessions() iter.Seq[Session] {
	return func(yield func(Session) bool) {
		for _, ses := range s.sessions.snapshot() {
			if info, ok := ses.info(); ok && !yield(info) {
				return
			}
		}
	}
}

// AccountTag returns the tag of an account, which [Session.Account] shows: a hash keyed
// with Config.Secret. Name is what Config.Authorize has returned, or "" without it. Sessions
// that were opened before Secret was changed have the tag of the old secret.
func (s *Server) AccountTag(name string) string { return s.secrets.tokens.account(name).String() }

// EndSession ends a session at once, in the kernel as well, and notifies its peers. It
// returns false if there is no session with that ID. This server does not let anybody open
// or resume the session again. A server that is restarted with the same Secret does not
// know that the session was ended: for ten TTLs it lets the peers resume it with the
// tokens that they have, as after any restart.
func (s *Server) EndSession(id string) bool {
	var sid control.SessionID
	if sid.UnmarshalText([]byte(id)) != nil {
		return false
	}
	ses := s.sessions.find(sid)
	return ses != nil && s.registrar.end(ses)
}

// EndAccount ends all sessions of an account, as [Server.EndSession] does, and returns how
// many there were. Name is what Config.Authorize has returned. To keep the account from
// opening new sessions, Config.Authorize has to refuse it from then on.
func (s *Server) EndAccount(name string) int {
	return s.registrar.endAccount(name)
}

func (a accountTag) String() string { return hex.EncodeToString(a[:]) }
