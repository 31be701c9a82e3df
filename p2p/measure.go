package p2p

import "time"

// pathSizes finds out which packets the path in use carries, direct or through the
// relay. Used only by the pathfinder's run goroutine.
type pathSizes struct {
	conn          *Conn
	link          *link
	pinger        *pinger
	initial       int // the size of packets that quic-go begins with
	relay, direct sizer
}

func newPathSizes(c *Conn, p *pinger) pathSizes {
	return pathSizes{
		conn:    c,
		link:    c.link,
		pinger:  p,
		initial: int(c.endpoint.conf.quicConfig().InitialPacketSize),
		relay:   sizer{size: &c.link.size},
		direct:  sizer{size: &c.link.direct.size},
	}
}

// restartDirect begins to measure another direct path, which is known to carry packets
// of a size.
func (s *pathSizes) restartDirect(known int, now time.Time) {
	s.link.direct.size.restart(known, s.initial)
	s.direct.restart(known, now)
}

// measure sends the probe that is due on the path in use: path, or the relay if path
// is nil. It returns when to look again.
func (s *pathSizes) measure(path *directPath, now time.Time) time.Time {
	if path != nil && s.link.direct.dead.Load() == nil {
		s.relay.stop()
		silent := s.link.direct.activity.silence(now) >= suspectAfter+path.liveness.rtt
		return s.probe(&s.direct, now, path.liveness.rtt, silent, func(size int) (uint64, error) {
			return s.pingDirect(path, size, now)
		})
	}
	s.relay.resume(now)
	return s.probe(&s.relay, now, s.conn.ConnectionStats().SmoothedRTT, false, s.pinger.pingByRelay)
}

// probe sends the probe that is due. It returns when to look again. silent says that
// the path owes answers.
func (s *pathSizes) probe(z *sizer, now time.Time, rtt time.Duration, silent bool, ping func(size int) (uint64, error)) time.Time {
	for {
		size, next := z.next(now, rtt, silent)
		if size == 0 {
			return next
		}
		sequence, err := ping(size)
		if err == nil {
			z.asked(sequence)
			return next
		}
		z.fail(size, now) // EMSGSIZE: this host sends nothing so large
		silent = false
		if size <= baseSize {
			return now.Add(confirmEvery)
		}
	}
}

// pingDirect sends a ping of a size on the direct path.
func (s *pathSizes) pingDirect(path *directPath, size int, now time.Time) (uint64, error) {
	sequence, err := s.pinger.ping(path.remote, size, now)
	if s.direct.tries > 1 && s.direct.asking <= s.direct.low && path.liveness.asks == 0 {
		// Small probes are answered: the path has lost only packets that were too
		// large for it, and is not dead. From now on it gets smaller ones.
		s.link.direct.activity.forgive()
	}
	return sequence, err
}
