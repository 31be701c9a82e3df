package relay

import (
	"time"

	"github.com/quicway/quicway/cid"
)

// claim is how the key of a leg has come to the leg. Whoever has an offer has the join
// token in it, and the ID of the session. A relay that has not opened the session itself,
// because it was restarted or is another relay with the same secret, does not know whether
// somebody has used them before. So what a client gets by them there is a doubtful claim,
// and has to yield to a client that shows by its resume token that it had the leg before.
// A resume token says what claim it was made for, so that a doubtful claim does not become
// a better one elsewhere.
type claim uint8

const (
	// claimResumed: by a resume token that does not say more, or that was made for a
	// doubtful claim.
	claimResumed claim = 0
	// claimDoubtful: by the join token, or as the dialer by an access token, at a relay
	// that has not opened the session itself.
	claimDoubtful claim = 1
	// claimFirst: at the relay that has opened the session itself, or by a resume token
	// of such a claim.
	claimFirst claim = 2

	claimMask = 3 // in two bits of a session token
)

// claimMargin is how much earlier than another session with the same ID a session must
// have been opened, to be known for the earlier one. The clocks of relays with the same
// secret may differ by as much.
const claimMargin = 5 * time.Second

// strength orders claims.
func (c claim) strength() int {
	switch c {
	case claimFirst:
		return 2
	case claimResumed:
		return 1
	}
	return 0
}

// resumed is the claim to a leg that is registered with a resume token.
func (c content) resumed() claim {
	if c.claim == claimFirst {
		return claimFirst
	}
	return claimResumed
}

// precedes says whether a resume token is of a session that was opened earlier than one
// with the same ID.
func (c content) precedes(opened time.Time) bool {
	return c.claim == claimFirst && !c.opened.IsZero() && !opened.IsZero() && c.opened.Add(claimMargin).Before(opened)
}

// yieldsLocked says whether a leg has to yield to the holder of a resume token for another
// key.
func (l *leg) yieldsLocked(to content, key cid.Key) bool {
	if !l.present || l.key.Equal(key) {
		return false
	}
	if have, want := l.claim.strength(), to.resumed().strength(); have != want {
		return have < want
	}
	return to.precedes(l.session.opened)
}
