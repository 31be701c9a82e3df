package nettest

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
)

// TestLookup checks that names may be looked up outside of a bubble after one inside. It ends the
// process if the first lookup of all is the one in the bubble.
func TestLookup(t *testing.T) {
	lookup := func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, _ = (&net.Resolver{PreferGo: true}).LookupHost(ctx, "localhost")
	}
	synctest.Test(t, func(*testing.T) { lookup() })
	lookup()
}
