package p2p

import (
	"errors"
	"fmt"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// A relay that answers us may forward nothing all the same. While packets that went by
// it have no answer the peer is asked by the same way. The relay is lost to a
// connection when neither packets nor questions are answered.
const (
	// askRelayEvery is how often.
	askRelayEvery = 500 * time.Millisecond
	// forwardPatience is how long that must be the case.
	forwardPatience = 3 * time.Second
	// unneededEvery is how often a lost relay is asked by a connection that does
	// not want it.
	unneededEvery = 15 * time.Second
)

// explain adds to the error of a connection that has not come about that packets by
// the relay have had no answer, though both peers are there.
func (l *link) explain(err error) error {
	there := l.joined.Load() || l.role == control.Accepter
	if err == nil || errors.Is(err, ErrClosed) || !there || l.activity.overdue(time.Now()) < forwardPatience {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotForwarded, err)
}

// relayWatch is what is known of the relay's forwarding.
type relayWatch struct {
	asks  int       // questions since the last answer
	asked time.Time // the last one
	first time.Time // the first of them
	heard time.Time // the last answer
	doubt time.Time // until when there is another reason to ask
	lost  time.Time // since when it does not forward; zero: it does
}

// relayed takes a probe that has come by the relay.
func (f *pathfinder) relayed(p probe, now time.Time) {
	f.link.speaks.Store(true)
	switch p.kind {
	case probePing:
		_, _ = f.link.sendEnvelope(f.prober.pong(p.sequence, f.link.remote()))
	case probePong:
		f.relay.asks, f.relay.heard = 0, now
		f.relaySize.answer(p.answers, now)
	}
}

// doubtRelay has the relay asked: the peer, who would rather use it, asks for a direct
// path.
func (f *pathfinder) doubtRelay(now time.Time) {
	if f.policy == PreferRelay && !f.direct() && f.relay.lost.IsZero() {
		f.relay.doubt = now.Add(2 * forwardPatience)
	}
}

// watchRelay judges whether the relay forwards, and says when to look again.
func (f *pathfinder) watchRelay(now time.Time) time.Time {
	w := &f.relay
	if !w.lost.IsZero() {
		return f.awaitRelay(now)
	}
	if f.direct() {
		return time.Time{}
	}
	silence := f.link.activity.overdue(now)
	if silence < suspicion && !w.doubt.After(now) {
		w.asks = 0
		return now.Add(suspicion - silence)
	}
	if w.dead(silence, f.link.activity.owed.Load(), now) {
		w.lost = now
		f.conn.endpoint.log.Info("relay does not forward", "peer", f.conn.remote, "relay", f.link.remote())
		f.conn.forwards(false)
		if f.locals != nil && !f.round.running {
			f.start(now)
		}
		return now
	}
	return f.askPeer(askRelayEvery, now)
}

// dead says whether packets and questions have been without answer for too long.
func (w *relayWatch) dead(silence time.Duration, owed uint32, now time.Time) bool {
	if now.Sub(w.heard) < forwardPatience || w.asks < fatalAsks {
		return false
	}
	packets := silence >= forwardPatience && owed >= fatalPackets
	questions := !w.heard.IsZero() && now.Sub(w.first) >= forwardPatience
	return packets || questions
}

// awaitRelay asks a relay that does not forward until it does.
func (f *pathfinder) awaitRelay(now time.Time) time.Time {
	w := &f.relay
	if w.heard.After(w.lost) || f.link.activity.heardSince(w.lost) {
		w.lost, w.asks = time.Time{}, 0
		f.conn.forwards(true)
		return now
	}
	if f.direct() && f.policy != PreferRelay {
		return f.askPeer(unneededEvery, now)
	}
	return f.askPeer(2*askRelayEvery, now)
}

// askPeer asks the peer by the relay, if it is time to.
func (f *pathfinder) askPeer(every time.Duration, now time.Time) time.Time {
	w := &f.relay
	if due := w.asked.Add(every); due.After(now) {
		return due
	}
	if w.asks == 0 {
		w.first = now
	}
	w.asks, w.asked = w.asks+1, now
	data, _ := f.prober.ping()
	_, _ = f.link.sendEnvelope(data)
	return now.Add(every)
}
