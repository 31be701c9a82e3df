package sni

import (
	"context"
	"log/slog"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// warnLog is a log of warnings that blocks.
type warnLog struct{ stuckLog }

func (l *warnLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// TestQUICLogBlocks checks that a log that blocks stops no QUIC flow when upstreams do not answer.
func TestQUICLogBlocks(t *testing.T) {
	upstream, down := udpConn(t, "127.0.0.1:0"), udpConn(t, "127.0.0.1:0")
	log := &warnLog{stuckLog{slog.DiscardHandler, make(chan struct{})}}
	s := newQUICServer(t, &Config{Routes: routesTo("a.test", addrOf(upstream).String(), "down.test", addrOf(down).String()), Logger: slog.New(log)})
	t.Cleanup(func() { close(log.released) }) // before the server closes
	down.Close()
	for i := range 4 {
		send(t, udpConn(t, "127.0.0.1:0"), s.Addr(), initials(t, wire.Version1, testID(8), quicHello(t, "down.test"), 2)...)
		nettest.Eventually(t, "the failures", func() bool { return s.Stats().QUIC.DialFailures > uint64(i) })
	}
	newPair(t, s, upstream, "a.test", udpConn(t, "127.0.0.1:0")).confirm()
}
