package nettest

import (
	"context"
	"net"
)

// Package net makes a channel when the first name is looked up, and keeps it. If that happened in a
// bubble of synctest, a lookup outside of that bubble would end the process. So a name is looked
// up before there is any bubble. The channel is made even though the lookup is canceled before it
// starts, so no query is sent and nothing waits, whatever the hosts file has.
func init() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = (&net.Resolver{PreferGo: true}).LookupHost(ctx, "localhost") // the answer does not matter
}
