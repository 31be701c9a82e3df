package p2p

import (
	"time"

	"github.com/quic-go/quic-go"
)

// progress remembers what quic-go has accepted, at each look of the failover. Anybody who
// knows a connection ID can send packets that look like the peer's. Only the peer can send
// packets that quic-go accepts. Used only by the pathfinder's run goroutine.
type progress struct {
	received uint64    // packets that quic-go has accepted
	sent     uint64    // packets sent when it last accepted one
	heard    time.Time // the first look after it last accepted one
	since    time.Time // the first look at which packets were unanswered; zero: none are
	owed     uint64    // the number of these packets

	quiet    int64  // since when the relay that carries is silent: see activity.unanswered
	accepted uint64 // received at the first look at this silence
}

// look takes note of quic-go's counters. PacketsReceived counts the packets that quic-go has
// decrypted and not seen before. a is the activity of the relay that carries.
func (p *progress) look(s quic.ConnectionStats, a *activity, now time.Time) {
	p.owed = s.PacketsSent - p.sent
	switch {
	case s.PacketsReceived != p.received || p.heard.IsZero():
		p.received, p.sent, p.owed, p.heard, p.since = s.PacketsReceived, s.PacketsSent, 0, now, time.Time{}
	case p.owed > 0 && p.since.IsZero():
		p.since = now
	}
	if quiet := a.unanswered.Load(); quiet != p.quiet {
		p.quiet, p.accepted = quiet, p.received
	}
}

// forgive counts the packets sent so far as answered.
func (p *progress) forgive(s quic.ConnectionStats) {
	p.sent, p.owed, p.since = s.PacketsSent, 0, time.Time{}
}

// leaveRelay is forgive for packets of a direct path. What is accepted there says nothing of
// the relays.
func (p *progress) leaveRelay(s quic.ConnectionStats) {
	p.forgive(s)
	p.quiet, p.accepted = 0, p.received
}

// silence is how long no packet has been accepted, though packets are unanswered.
func (p *progress) silence(now time.Time) time.Duration {
	if p.since.IsZero() {
		return 0
	}
	return now.Sub(p.since)
}

// isElsewhere says whether packets have been accepted while the relay that carries has
// delivered none, so that they have come another way.
func (p *progress) isElsewhere() bool { return p.quiet != 0 && p.received > p.accepted }

// trial says whether the relay that has carried since the last turn forwards to the peer. The
// peer answers pings through it, which nobody else can do. The zero value begins one. Used
// only by the pathfinder's run goroutine.
type trial struct {
	passed bool
	pings  uint64    // sent so far
	first  uint64    // the sequence number of the first one
	began  time.Time // when it was sent
	last   time.Time // when the last one was
}

// ping pings the peer through the relay that carries, if it is due.
func (t *trial) ping(p *pinger, now time.Time) {
	if t.pings > 0 && now.Sub(t.last) < askAgain {
		return
	}
	sequence, _ := p.pingByRelay(0)
	if t.pings == 0 {
		t.first, t.began = sequence, now
	}
	t.pings, t.last = t.pings+1, now
}

// answered takes the peer's answer to the ping with a sequence number.
func (t *trial) answered(sequence uint64) {
	t.passed = t.passed || t.pings > 0 && sequence >= t.first
}
