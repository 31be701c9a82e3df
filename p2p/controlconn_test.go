package p2p

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
)

// TestLateAnswer checks that a late answer does not replace a newer observed address.
func TestLateAnswer(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	conn := &controlConn{}
	for i, told := range []struct {
		addr netip.AddrPort
		seq  uint64
		want netip.AddrPort
	}{{a, 1, a}, {b, 2, b}, {a, 1, b}, {b, 2, b}, {a, 3, a}, {b, 2, a}} {
		conn.observed(told.addr, told.seq)
		if got := conn.address(); got != told.want {
			t.Errorf("step %d: we are at %v, want %v", i, got, told.want)
		}
	}
}

// TestLateRefresh checks the same with the answer to a leg's refresh.
func TestLateRefresh(t *testing.T) {
	runLab(t, func(l *lab) {
		a, _ := l.connect(l.host(nil), l.host(nil))
		ctx := context.Background()
		link, before := a.link, a.link.observed()
		conn, err := link.leg().client.current(ctx)
		if err != nil {
			l.Fatal(err)
		}
		if _, err := link.leg().register(ctx, conn); err != nil || link.observed() != before {
			l.Fatalf("we are at %v, %v, want %v", link.observed(), err, before)
		}
		moved := netip.MustParseAddrPort("192.0.2.1:2")
		conn.observed(moved, 1<<32)
		if _, err := link.leg().register(ctx, conn); err != nil || link.observed() != moved {
			l.Errorf("after an old answer we are at %v, %v, want %v", link.observed(), err, moved)
		}
	})
}

// TestOverQuotaIsRefused checks the error when the relay has no room for another
// connection.
func TestOverQuotaIsRefused(t *testing.T) {
	controller, err := quota.New(&quota.Config{Source: quota.Limits{Connections: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for name, conf := range map[string]*relay.Config{
		"relay": {MaxConnectionsPerSource: 1},
		"quota": {Quota: controller},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.stopRelay()
				conf.Secret = relaySecret
				server, err := relay.New(conf, l.net.Listen(relayAddr))
				if err != nil {
					t.Fatal(err)
				}
				l.server, l.served = server, make(chan error, 1)
				go func() { l.served <- server.Run(context.Background()) }()
				first, second := l.host(nil), l.host(nil)
				l.net.Rebind(second.conn, "198.51.100.1:2000")
				dial := func(h *host) error {
					ctx, cancel := context.WithTimeout(l.Context(), 20*time.Second)
					defer cancel()
					_, err := h.Dial(ctx, first.ID(), &DialConfig{Deliver: func(context.Context, Offer) error { return context.Canceled }})
					return err
				}
				if err := dial(first); !errors.Is(err, context.Canceled) {
					t.Fatalf("the first: %v", err)
				}
				hold, err := first.relays.acquire(l.relay())
				if err != nil {
					t.Fatal(err)
				}
				defer first.relays.release(hold)
				if _, err := hold.current(l.Context()); err != nil {
					t.Fatal(err)
				}
				err = dial(second)
				if !errors.Is(err, ErrRelayRefused) || errors.Is(err, ErrRelayUnreachable) || !strings.Contains(fmt.Sprint(err), "too many connections") {
					t.Errorf("one more than may be: %v", err)
				}
			})
		})
	}
}
