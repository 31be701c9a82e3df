package monitor

import (
	"slices"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// maxSamples is the number of round trips that are kept of each direction of a path.
const maxSamples = 32

// samples are the round trips by the spin bit of one direction of a path.
type samples struct {
	latest [maxSamples]uint32 // in microseconds, as a ring
	count  uint32
	min    time.Duration
	jitter time.Duration // sixteen times the moving average
	last   time.Duration
}

// add adds a round trip. The jitter is the moving average of the differences between one round
// trip and the next, with a weight of a sixteenth (RFC 3550 §6.4.1).
func (s *samples) add(rtt time.Duration) {
	if s.count == 0 || rtt < s.min {
		s.min = rtt
	}
	if s.count > 0 {
		s.jitter += max(rtt-s.last, s.last-rtt) - s.jitter/16
	}
	s.latest[s.count%maxSamples] = uint32(rtt / time.Microsecond)
	s.last = rtt
	s.count++
}

// addSample keeps a round trip of the direction that a side sends in.
func (p *path) addSample(from wire.Side, rtt int64) {
	sent := &p.sent[from]
	if sent.samples == nil {
		sent.samples = new(samples)
	}
	sent.samples.add(time.Duration(rtt))
}

// rttStats returns what is known of the round trips of a path. Of the spin bit it takes the
// direction with the smaller average, as [path.spinRTT] does.
func (p *path) rttStats() (out RTTStats) {
	var all []uint32
	if s := p.spinSamples(); s != nil {
		out = RTTStats{Samples: int(s.count), Min: Milliseconds(s.min), Jitter: Milliseconds(s.jitter / 16)}
		all = slices.Clone(s.latest[:min(s.count, maxSamples)])
	}
	if rtt := p.handshakeSample(); rtt > 0 {
		if out.Samples == 0 || Milliseconds(rtt) < out.Min {
			out.Min = Milliseconds(rtt)
		}
		all = append(all, uint32(rtt/time.Microsecond))
		out.Samples++
	}
	if len(all) > 0 {
		slices.Sort(all)
		out.Median = Milliseconds(time.Duration(all[(len(all)-1)/2]) * time.Microsecond)
	}
	return out
}

// spinSamples returns the samples of the direction whose average [path.spinRTT] returns, or nil.
func (p *path) spinSamples() *samples {
	rtt := p.spinRTT()
	for side := range p.sent {
		if s := &p.sent[side]; rtt != 0 && s.spin.rtt() == rtt && s.samples != nil {
			return s.samples
		}
	}
	return nil
}

// maxHandshakeSample is the longest round trip of a handshake that is taken for one.
const maxHandshakeSample = int64(30 * time.Second)

// handshakeSample returns the round trip of the handshake if it was on this path and took only
// one, or 0.
func (p *path) handshakeSample() time.Duration {
	c := p.conn
	if p.kind != NoChange || c.retries > 0 || c.negotiations > 0 || c.answerAt <= c.initialAt || c.initialAt == 0 {
		return 0
	}
	rtt := c.confirmAt - c.initialAt
	if c.confirmAt <= c.answerAt || rtt > maxHandshakeSample {
		return 0
	}
	return time.Duration(rtt)
}
