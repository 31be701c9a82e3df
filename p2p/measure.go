package p2p

import (
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// measureDirect begins to find out what another direct path carries. known is known to
// pass.
func (f *pathfinder) measureDirect(known int, now time.Time) {
	f.link.direct.size.restart(known, int(f.conn.endpoint.conf.quicConfig().InitialPacketSize))
	f.directSize.restart(known, now)
}

// measure finds out what the path in use carries, and says when to look again.
func (f *pathfinder) measure(now time.Time) time.Time {
	if f.direct() && f.link.direct.dead.Load() == nil {
		f.relaySize.stop()
		a := &f.link.direct.activity
		return f.enlarge(&f.directSize, now, f.vitals.rtt, a.silence(now) >= suspectAfter+f.vitals.rtt, f.askDirect)
	}
	f.relaySize.resume(now)
	return f.enlarge(&f.relaySize, now, f.conn.ConnectionStats().SmoothedRTT, false, f.askRelay)
}

// enlarge sends the probe that is due.
func (f *pathfinder) enlarge(z *sizer, now time.Time, rtt time.Duration, silent bool, ask func(int, time.Time) (uint64, error)) time.Time {
	for {
		size, next := z.next(now, rtt, silent)
		if size == 0 {
			return next
		}
		sequence, err := ask(size, now)
		if err == nil {
			z.asked(sequence)
			return next
		}
		z.fail(size, now) // this host sends nothing so large
		silent = false
		if size <= baseSize {
			return now.Add(confirmEvery)
		}
	}
}

// askDirect asks whether a size passes on the direct path.
func (f *pathfinder) askDirect(size int, now time.Time) (uint64, error) {
	sequence, err := f.ping(f.current, size, now)
	if f.directSize.tries > 1 && f.directSize.asking <= f.directSize.low && f.vitals.asks == 0 {
		// Small probes are answered. The path does not die of what was too
		// large for it; what is sent now is not.
		f.link.direct.activity.forgive()
	}
	return sequence, only(err)
}

// askRelay asks whether a size passes over the relay.
func (f *pathfinder) askRelay(size int, _ time.Time) (uint64, error) {
	data, sequence := f.prober.pingOf(size - envelopeSize)
	_, err := f.link.sendEnvelope(data)
	return sequence, only(err)
}

// only keeps an error that says that a probe is too large.
func only(err error) error {
	if udp.IsMessageTooLong(err) {
		return err
	}
	return nil
}

// fit asks an address that has answered whether it carries QUIC's packets, too.
func (f *pathfinder) fit(p *pair, now time.Time) {
	if p.sizing {
		return
	}
	p.sizing = true
	for _, size := range []int{fullSize, baseSize} {
		_, _ = f.ping(p.addr, size, now)
	}
}
