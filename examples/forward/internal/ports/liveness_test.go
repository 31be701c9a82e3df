package ports

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// TestLiveness checks when a peer counts as silent, and when it should be asked.
func TestLiveness(t *testing.T) {
	var l liveness
	now := time.Now()
	stats := quic.ConnectionStats{PacketsReceived: 10, PacketsSent: 10}
	look := func(after time.Duration, wantDoubtful, wantAnswered, wantSilent bool) {
		t.Helper()
		now = now.Add(after)
		l.note(stats, now)
		_, answered, silent := l.state(now)
		if doubtful := l.doubtful(now); doubtful != wantDoubtful || answered != wantAnswered || silent != wantSilent {
			t.Errorf("doubtful %v, answered %v, silent %v", doubtful, answered, silent)
		}
	}
	look(0, false, true, false)
	look(time.Hour, false, true, false) // nothing was sent
	stats.PacketsSent++
	look(0, false, true, false)
	look(silentAfter, true, true, false) // that needs no proof: it may need no answer
	if !l.ask(now) || l.ask(now) {
		t.Error("there is not one question")
	}
	look(silentAfter-1, false, false, false)
	look(1, false, false, true)
	stats.PacketsReceived++
	look(0, false, true, false)
	if lately, _, _ := l.state(now); !lately {
		t.Error("a packet is not noticed")
	}
}

// TestAnswers checks that a peer which lives answers, although nothing else is sent.
func TestAnswers(t *testing.T) {
	l := newLab(t)
	a, b := l.sessions(l.conf(), l.conf())
	for _, s := range []*Session{a, b} {
		s.look()
		s.live.heard = time.Time{}
		if !s.answers(t.Context()) {
			t.Error("no answer")
		}
		if s.staysSilent(t.Context()) {
			t.Error("a session that lives is silent")
		}
	}
}
