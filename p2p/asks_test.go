package p2p

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestQuestionBeginsAtOnce checks that no other goroutine sees a question as older than it is.
func TestQuestionBeginsAtOnce(t *testing.T) {
	var a asks
	var now, stop atomic.Int64
	longest := make(chan time.Duration)
	go func() {
		var most time.Duration
		for stop.Load() == 0 {
			most = max(most, a.unanswered(time.Unix(0, now.Load())))
		}
		longest <- most
	}()
	for i := range 500_000 {
		at := time.Unix(int64(i+1)*3600, 0)
		now.Store(at.UnixNano())
		if !a.begin(at, time.Minute) || a.begin(at.Add(time.Hour), time.Minute) {
			t.Fatal("not one question at a time")
		}
		a.end()
	}
	stop.Store(1)
	if most := <-longest; most > 0 {
		t.Errorf("a question that has just begun is unanswered for %v", most)
	}
}
