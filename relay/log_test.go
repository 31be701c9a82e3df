package relay

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/control"
)

// TestLogIsBounded checks that a client cannot fill the log by repeating requests, with or
// without a token.
func TestLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	runLab(t, &Config{Logger: slog.New(slog.NewTextHandler(&out, nil))}, func(l *lab) {
		p := l.peer()
		path := fmt.Sprintf(control.OffersPath, strings.Repeat("a", 3500))
		for range 500 {
			p.do("GET", path, "", nil)
		}
		for range 100 {
			p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
			p.end(p.key)
		}
	})
	if n := strings.Count(out.String(), "\n"); n > 200 || out.Len() > 100<<10 {
		t.Errorf("%d lines of %d bytes", n, out.Len())
	}
}
