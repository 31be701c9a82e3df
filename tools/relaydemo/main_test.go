//go:build unix

package main

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestMain runs a relay if another test has started this process for that.
func TestMain(m *testing.M) {
	if isRelay() {
		exit(serveRelay())
	}
	os.Exit(m.Run())
}

// soakVariable makes TestRelaysDie run for two minutes, with fifty connections.
const soakVariable = "QUICWAY_RELAY_SOAK"

// TestRelaysDie checks with processes that no connection and no byte is lost when relays are
// killed and stopped, one after the other.
func TestRelaysDie(t *testing.T) {
	o := options{relays: 3, kills: 1, drains: 1, connections: 2, rate: 32 << 10, pause: 2 * time.Second, out: t.Output()}
	if os.Getenv(soakVariable) != "" {
		o.kills, o.drains, o.connections, o.pause = 20, 3, 50, 6*time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	result, err := run(ctx, &o)
	if err != nil {
		t.Fatal(err)
	}
	result.print(o.out)
	if err := result.check(); err != nil {
		t.Error(err)
	}
}
