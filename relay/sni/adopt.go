package sni

import "time"

// adopt takes on the connections that another process has left in the kernel.
func (s *Server) adopt() {
	for a := range s.splicer.kernel.adopted() {
		select {
		case s.room <- struct{}{}:
			s.beginAdopted(a)
		default: // there is no room
			if err := a.pair.abort(); err != nil {
				s.log.Warn("a connection that was left in the kernel was not reset", "client", a.client, "err", err)
			}
		}
	}
}

// beginAdopted looks after a connection on a goroutine of its own, as begin does.
func (s *Server) beginAdopted(a adoptedPair) {
	t := newTakeover()
	t.pair = a.pair
	close(t.over)
	c := &conn{server: s, began: time.Now(), opened: true, adopted: a.upstream, takeover: t}
	c.hello.Client = a.client
	s.splicer.counters.adopted.Add(1)
	s.conns.add(c)
	s.conns.heard(c)
	// The limits of its source and of the quota count it, and do not end it.
	s.conns.countFor(c, sourceOf(a.client.Addr()))
	if s.conf.Quota != nil {
		if slot, err := s.conf.Quota.Admit(a.client, true); err == nil {
			c.hold(slot)
		}
	}
	s.splicer.offer(c)
	c.enter(t)
	s.running.Go(func() {
		defer func() { <-s.room }()
		defer c.finish()
		if c.stay() {
			c.relay()
		}
	})
}
