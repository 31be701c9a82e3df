package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
)

// Timing of a migration (RFC 9000 §9).
const (
	// migrateTimeout is how long QUIC may take to validate a path that probes have
	// found good.
	migrateTimeout = 2 * time.Second
	// relayPathTimeout is the same for the relay path.
	relayPathTimeout = 5 * time.Second
)

// migration is the result of an attempt of a dialer's to migrate.
type migration struct {
	remote netip.AddrPort
	path   *directPath // nil if err is set
	err    error
}

// migrate begins to migrate a dialer's connection to an address of the peer's. It
// returns false if that is not possible now.
func (c *carrier) migrate(remote netip.AddrPort) bool {
	if c.forgetLeft(); c.left != nil && c.relayPath.isReady() {
		return false // the peer has not followed to the relay
	}
	var used *directTransport
	if path := c.validated(); path != nil {
		used = path.transport
	}
	t, err := c.link.spareTransport(used)
	if err != nil {
		return false
	}
	c.link.direct.dead.Store(nil) // it has answered
	c.conn.background.Go(func() { c.migrations <- c.conn.migrateTo(t, remote) })
	return true
}

// validated is the direct path that a dialer's quic-go uses, or has used until the
// relay proves to work.
func (c *carrier) validated() *directPath {
	if c.path != nil {
		return c.path
	}
	return c.left
}

// arrive makes the path that a dialer has migrated to the carrier. p is what probes
// have told about it, or nil.
func (c *carrier) arrive(path *directPath, p *pair, now time.Time) {
	why := WhyPunched
	if c.isDirect() {
		why = WhyBetter
	}
	if old := c.validated(); old != nil {
		_ = old.quicPath.Close()
	}
	size := baseSize
	if p != nil {
		size = max(size, p.size)
	}
	c.sizes.restartDirect(size, now)
	c.enter(path, why, now)
}

// forgetLeft closes the path that was left, once the relay has delivered something.
func (c *carrier) forgetLeft() {
	if c.left != nil && c.relayPath.isReady() && c.link.activity.heardSince(c.since) {
		_ = c.left.quicPath.Close()
		c.left = nil
	}
}

// rejoin goes back to the path that was left, which answers again while the relay does
// not. The path needs no validation, and could not have one: the peer has never gone
// from there, and a server does not answer PATH_CHALLENGE from where its client is. It
// returns false if QUIC refuses.
func (c *carrier) rejoin(now time.Time) bool {
	path := c.left
	if c.relayPath.isReady() && path.quicPath.Switch() != nil {
		return false
	}
	c.sizes.direct.resume(now)
	c.enter(path, WhyPunched, now)
	c.conn.wake()
	return true
}

// migrateTo migrates the connection to an address (RFC 9000 §9): one path, one
// validation, one switch, because each path takes one of the few connection IDs. It
// blocks.
func (c *Conn) migrateTo(t *directTransport, remote netip.AddrPort) migration {
	t.remote.Store(&remote)
	path, err := c.AddPath(t.transport)
	if err != nil {
		return migration{remote: remote, err: err}
	}
	ctx, cancel := context.WithTimeout(c.Context(), migrateTimeout)
	defer cancel()
	if err = path.Probe(ctx); err == nil {
		err = path.Switch()
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("path not validated: %w", err), path.Close())
		return migration{remote: remote, err: err}
	}
	c.wake()
	return migration{remote: remote, path: &directPath{remote: remote, quicPath: path, transport: t}}
}

// wake makes quic-go send a packet after a switch. quic-go does not do so by itself,
// and the peer follows only a packet that is not a mere probing packet (RFC 9000 §9.1).
func (c *Conn) wake() { c.queueFrame(frame{kind: frameKeepAlive}) }

// relayPath is the path through the relay that a dialer keeps validated while it uses a
// direct one. It cannot be validated when it is needed: if the direct path has died
// with data in flight, quic-go sends no PATH_CHALLENGE.
type relayPath struct {
	path      *quic.Path // nil: it is not ready
	preparing bool       // it is being validated
	retry     time.Time  // when to try again; zero: never
	results   chan relayPathResult
}

// relayPathResult is how the validation of the relay path has ended.
type relayPathResult struct {
	path *quic.Path
	err  error
}

// isReady says whether the connection can be switched to the relay.
func (s *relayPath) isReady() bool { return s.path != nil }

// prepareRelayPath begins to validate the relay path, unless that is under way or done.
func (c *carrier) prepareRelayPath() {
	s := &c.relayPath
	s.retry = time.Time{}
	if s.preparing || s.isReady() {
		return
	}
	s.preparing = true
	c.conn.background.Go(func() {
		path, err := c.conn.validateRelay()
		s.results <- relayPathResult{path, err}
	})
}

// relayPathReady takes the result.
func (c *carrier) relayPathReady(r relayPathResult) {
	s := &c.relayPath
	s.preparing = false
	if r.err != nil {
		s.retry = time.Now().Add(relayPathTimeout)
		return
	}
	s.path = r.path
	if c.left != nil && !c.isDirect() && s.path.Switch() == nil {
		c.conn.wake() // the direct path has died meanwhile
	}
}

// retryRelayPath prepares the relay path again if that has failed. It returns when that is
// due.
func (c *carrier) retryRelayPath(now time.Time) time.Time {
	s := &c.relayPath
	if s.retry.IsZero() || s.retry.After(now) {
		return s.retry
	}
	s.retry = time.Time{}
	if c.isDirect() {
		c.prepareRelayPath()
	}
	return time.Time{}
}

// switchToRelay has a dialer's quic-go send through the relay. If the relay path is not
// ready, packets go there all the same: see sendDirect.
func (c *carrier) switchToRelay() {
	if !c.relayPath.isReady() || c.relayPath.path.Switch() != nil {
		c.relayPath.path = nil
		return
	}
	c.conn.wake()
}

// validateRelay validates the path through the relay. This works only after the peer
// has left the relay, because a server does not answer PATH_CHALLENGE from where its
// client is. It blocks.
func (c *Conn) validateRelay() (*quic.Path, error) {
	sleep(c.Context(), c.ConnectionStats().SmoothedRTT+10*time.Millisecond)
	path, err := c.AddPath(c.link.transport)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context(), relayPathTimeout)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		return nil, errors.Join(err, path.Close())
	}
	return path, nil
}
