package p2p

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

type lockedBuffer struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

// TestLogIsBounded checks that a peer cannot fill the log by repetition.
func TestLogIsBounded(t *testing.T) {
	var out lockedBuffer
	runLab(t, func(l *lab) {
		logged := func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&out, nil)) }
		a, b := l.connect(l.host(nil), l.host(logged))
		for range 20_000 {
			b.endpoint.log.Info("path", "peer", b.remote, "path", b.Path())
		}
		l.exchange(a, b, 1000)
	})
	if n := strings.Count(out.out.String(), "\n"); n > 200 {
		t.Errorf("%d lines", n)
	}
}
