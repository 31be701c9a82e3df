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
	look := func(after time.Duration, want string) {
		t.Helper()
		now = now.Add(after)
		l.note(stats, now)
		got := ""
		for _, is := range []struct {
			true bool
			name string
		}{{l.lately(now), "lately "}, {l.doubtful(now), "doubtful "}, {l.answered(), "answered "}, {l.silent(now), "silent "}} {
			if is.true {
				got += is.name
			}
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	look(0, "lately answered ")
	look(heardLately-1, "lately answered ")
	look(1, "answered ")
	look(time.Hour, "answered ") // nothing was sent
	stats.PacketsSent++
	look(0, "answered ")
	look(silentAfter-1, "answered ")
	stats.PacketsSent++ // again, which is not a beginning
	look(1, "doubtful answered ")
	if !l.ask(now) {
		t.Error("there is no question")
	}
	look(silentAfter-1, "")
	if l.ask(now) {
		t.Error("there is another question")
	}
	look(1, "silent ") // since the first one
	stats.PacketsReceived++
	look(0, "lately answered ")
	if !l.ask(now) {
		t.Error("there is no other question")
	}
	look(0, "")
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

// TestOldPackets checks that what has come before a question does not answer it, also if nobody has
// looked since then.
func TestOldPackets(t *testing.T) {
	l := newLab(t)
	conn, _ := l.connect()
	for {
		s := NewSession(conn, l.conf()) // does not run, so that the question is not sent
		before := conn.ConnectionStats().PacketsReceived
		s.ask()
		s.look()
		answered := s.live.answered()
		if conn.ConnectionStats().PacketsReceived != before {
			continue // something else has come since
		}
		if before == 0 || answered {
			t.Errorf("%d packets that have come before answer a question", before)
		}
		return
	}
}

// TestSilenceEnds checks that a session which has ended is not silent, or a link would dial in vain
// again and again.
func TestSilenceEnds(t *testing.T) {
	l := newLab(t)
	conn, _ := l.connect()
	s := NewSession(conn, l.conf())
	if err := conn.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	s.look()
	s.live.asked = time.Now().Add(-silentAfter)
	if s.awaitSilence(t.Context()) {
		t.Error("a session that has ended is silent")
	}
}
