package ports

import (
	"context"
	"time"

	"github.com/quicway/quicway/p2p"
)

// Accept serves the peers that connect, until ctx is done or accept returns an error which another
// call does not cure. It returns the reason when all sessions have ended.
func Accept(ctx context.Context, conf *Config, accept func(context.Context) (*p2p.Conn, error)) error {
	var present guests
	defer present.tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := redialFirst
	for {
		conn, err := accept(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.CloseWithError(0, "")
			}
			return context.Cause(ctx)
		case err == nil:
			present.begin(ctx, NewSession(conn, conf))
			wait = redialFirst
			continue
		case isPermanent(err):
			return err
		}
		conf.Log.Warn("cannot accept peers; trying again", "in", wait, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, redialMax)
	}
}

// begin runs a session of a peer that has connected, unless there are too many. Sessions that the
// same peer has begun before end if it does not answer on them.
func (g *guests) begin(ctx context.Context, s *Session) {
	id, log := s.conn.RemoteID(), s.conf.Log
	for _, other := range g.of(id) {
		g.tasks.Go(func() { other.leaveIfSilent(ctx) })
	}
	if !g.enter(id, s) {
		log.Warn("too many connections", "peer", id)
		_ = s.conn.CloseWithError(0, "too many connections")
		return
	}
	g.tasks.Go(func() {
		defer g.leave(id, s)
		log.Info("connected", "peer", s)
		err := s.Run(ctx)
		log.Info("disconnected", "peer", id, "reason", err)
	})
}

// leaveIfSilent ends a session whose peer has connected again, if it does not answer: it may hold
// the ports at which the new session shall listen. It does nothing while another call waits for an
// answer.
func (s *Session) leaveIfSilent(ctx context.Context) {
	if s.doubted.Swap(true) {
		return
	}
	defer s.doubted.Store(false)
	if s.staysSilent(ctx) {
		_ = s.conn.CloseWithError(0, "connected again")
	}
}
