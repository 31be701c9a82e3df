package p2p

import "time"

// A direct path is suspect while packets of the connection are unanswered on it. A
// suspect path is pinged. The path is dead when the packets or the pings stay
// unanswered for too long. Packets count by themselves because some paths let probes
// through and drop everything else. Pings count by themselves because this side may
// have nothing to send that must be answered.
const (
	// suspectAfter is the silence after which a path is suspect, plus the path's
	// round-trip time.
	suspectAfter = 150 * time.Millisecond
	// askEvery is the period of the pings.
	askEvery = 150 * time.Millisecond
	// fatalPackets is how many packets must be unanswered: one or two may be
	// acknowledgements, which have no answer.
	fatalPackets = 3
	// fatalAsks is how many pings in a row must be unanswered.
	fatalAsks = 3
	// fatalSilence is how long packets or pings must be unanswered, more if the
	// round-trip time is long.
	fatalSilence = 450 * time.Millisecond
	// activeFor is how long a path is watched closely after a packet.
	activeFor = 2 * time.Second
)

// liveness says whether the direct path in use works.
type liveness struct {
	rtt   time.Duration
	asks  int       // pings since the last pong
	asked time.Time // the last ping
	heard time.Time // the last pong
}

// alive takes note of a pong. If only a few packets are unanswered, they were
// acknowledgements.
func (l *liveness) alive(a *activity, now time.Time) {
	l.asks, l.heard = 0, now
	if a.owed.Load() < fatalPackets {
		a.forgive()
	}
}

// patience is how long packets may stay unanswered.
func (l *liveness) patience() time.Duration { return max(fatalSilence, 2*l.rtt+100*time.Millisecond) }

// dead says whether the connection must leave the path.
func (l *liveness) dead(a *activity, now time.Time) bool {
	silence := a.silence(now)
	if silence < l.patience() {
		return false
	}
	return a.owed.Load() >= fatalPackets || l.asks >= fatalAsks && now.Sub(l.asked) >= askEvery
}

// suspect says whether the path should be pinged now.
func (l *liveness) suspect(a *activity, now time.Time) bool {
	if a.silence(now) < suspectAfter+l.rtt {
		l.asks = 0
		return false
	}
	return now.Sub(l.asked) >= askEvery
}

// ask takes note of a ping.
func (l *liveness) ask(now time.Time) { l.asks, l.asked = l.asks+1, now }

// period is how often the path should be checked.
func (l *liveness) period(a *activity, now time.Time) time.Duration {
	if a.silence(now) > 0 || a.idle(now) < activeFor {
		return askEvery / 3
	}
	return time.Second
}
