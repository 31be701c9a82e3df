package p2p

import "time"

// A direct path is judged by what comes over it. While the peer owes an answer to
// packets of the connection and says nothing, the path is suspect; probes then ask
// it the simplest question. It is dead when either stays without answer for too
// long: the packets, because a path may pass probes and nothing else, or the
// probes, because we may have nothing to send that has to be answered.
const (
	// suspectAfter is the silence after which a path is asked.
	suspectAfter = 150 * time.Millisecond
	// askEvery is how often.
	askEvery = 150 * time.Millisecond
	// fatalPackets are those that must stay unanswered: one or two may be
	// mere acknowledgements, to which there is no answer.
	fatalPackets = 3
	// fatalAsks is how many questions in a row must stay unanswered.
	fatalAsks = 3
	// fatalSilence is how long that must be the case, more if the path is
	// long.
	fatalSilence = 450 * time.Millisecond
	// activeFor is how long a path is watched closely after a packet.
	activeFor = 2 * time.Second
)

// vitals is what is known of the path in use.
type vitals struct {
	rtt   time.Duration
	asks  int       // questions since the last answer
	asked time.Time // the last one
	heard time.Time // the last answer to one
}

// alive takes note of an answer to a question. The few packets that are without
// one were acknowledgements then.
func (v *vitals) alive(a *activity, now time.Time) {
	v.asks, v.heard = 0, now
	if a.owed.Load() < fatalPackets {
		a.forgive()
	}
}

// patience is how long silence may last.
func (v *vitals) patience() time.Duration { return max(fatalSilence, 2*v.rtt+100*time.Millisecond) }

// dead says whether the path is to be left.
func (v *vitals) dead(a *activity, now time.Time) bool {
	silence := a.silence(now)
	if silence < v.patience() {
		return false
	}
	return a.owed.Load() >= fatalPackets || v.asks >= fatalAsks && now.Sub(v.asked) >= askEvery
}

// suspect says whether the path should be asked now.
func (v *vitals) suspect(a *activity, now time.Time) bool {
	if a.silence(now) < suspectAfter+v.rtt {
		v.asks = 0
		return false
	}
	return now.Sub(v.asked) >= askEvery
}

// ask takes note of a question.
func (v *vitals) ask(now time.Time) { v.asks, v.asked = v.asks+1, now }

// period is how often to look.
func (v *vitals) period(a *activity, now time.Time) time.Duration {
	if a.silence(now) > 0 || a.idle(now) < activeFor {
		return askEvery / 3
	}
	return time.Second
}
