package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// A relay may answer this side and yet forward nothing. While packets that went through
// the relay are unanswered, this side pings the peer through the relay. The relay is
// lost to a connection when neither packets nor pings are answered.
const (
	// pingRelayEvery is the period of these pings.
	pingRelayEvery = 500 * time.Millisecond
	// forwardPatience is how long packets and pings must be unanswered.
	forwardPatience = 3 * time.Second
	// unneededEvery is the period of pings through a lost relay if the connection has
	// a direct path and prefers it.
	unneededEvery = 15 * time.Second
)

// explain adds ErrNotForwarded to the error of a handshake that has failed, if both
// peers were at the relay and packets through it had no answer.
func (l *link) explain(err error) error {
	there := l.joined.Load() || l.role == control.Accepter
	if err == nil || errors.Is(err, ErrClosed) || !there || l.activity.overdue(time.Now()) < forwardPatience {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotForwarded, err)
}

// relayWatch checks whether the relay forwards a connection's packets. Used only by
// the pathfinder's run goroutine.
type relayWatch struct {
	conn   *Conn
	link   *link
	pinger *pinger

	pings      int       // since the last pong
	firstPing  time.Time // of these
	lastPing   time.Time
	lastPong   time.Time
	doubtUntil time.Time // until then the relay is pinged though no packet is unanswered
	lost       time.Time // since when it does not forward; zero: it does
}

// answered takes a pong that has come through the relay.
func (w *relayWatch) answered(now time.Time) { w.pings, w.lastPong = 0, now }

// reset begins with another relay.
func (w *relayWatch) reset() { *w = relayWatch{conn: w.conn, link: w.link, pinger: w.pinger} }

// doubt has the relay pinged for a while, though no packet is unanswered.
func (w *relayWatch) doubt(now time.Time) {
	if w.lost.IsZero() {
		w.doubtUntil = now.Add(2 * forwardPatience)
	}
}

// watch checks whether the relay forwards. It returns when to look again, and whether
// the relay has just been lost. direct says that a direct path carries the packets.
func (w *relayWatch) watch(direct bool, policy PathPolicy, now time.Time) (next time.Time, lost bool) {
	if !w.lost.IsZero() {
		return w.awaitReturn(direct, policy, now), false
	}
	if direct {
		return time.Time{}, false
	}
	silence := w.link.activity.overdue(now)
	if silence < suspicion && !w.doubtUntil.After(now) {
		w.pings = 0
		return now.Add(suspicion - silence), false
	}
	if w.dead(silence, w.link.activity.owed.Load(), now) {
		w.lost = now
		w.conn.endpoint.log.Info("relay does not forward", "peer", w.conn.remote, "relay", w.link.remote())
		w.conn.relayForwards(false)
		return now, true
	}
	return w.ping(pingRelayEvery, now), false
}

// dead says whether packets and pings have been unanswered for too long.
func (w *relayWatch) dead(silence time.Duration, owed uint32, now time.Time) bool {
	if now.Sub(w.lastPong) < forwardPatience || w.pings < fatalAsks {
		return false
	}
	packets := silence >= forwardPatience && owed >= fatalPackets
	pings := !w.lastPong.IsZero() && now.Sub(w.firstPing) >= forwardPatience
	return packets || pings
}

// awaitReturn pings through a relay that does not forward until it does.
func (w *relayWatch) awaitReturn(direct bool, policy PathPolicy, now time.Time) time.Time {
	if w.lastPong.After(w.lost) || w.link.activity.heardSince(w.lost) {
		w.lost, w.pings = time.Time{}, 0
		w.conn.relayForwards(true)
		return now
	}
	if direct && policy != PreferRelay {
		return w.ping(unneededEvery, now)
	}
	return w.ping(2*pingRelayEvery, now)
}

// ping pings the peer through the relay, if the last ping was a period ago. It returns
// when the next one is due.
func (w *relayWatch) ping(every time.Duration, now time.Time) time.Time {
	if due := w.lastPing.Add(every); due.After(now) {
		return due
	}
	if w.pings == 0 {
		w.firstPing = now
	}
	w.pings, w.lastPing = w.pings+1, now
	_, _ = w.pinger.pingByRelay(0)
	return now.Add(every)
}
