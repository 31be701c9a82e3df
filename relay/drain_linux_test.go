package relay_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// TestKernelForwardsWhileDraining checks that the kernel goes on to forward for a session
// while its relay drains, that the relay waits for such a session, and that nothing of it is
// left in the kernel when the peers have ended it, also if the program is pinned.
func TestKernelForwardsWhileDraining(t *testing.T) {
	for name, pinned := range map[string]bool{"pinned": true, "not pinned": false} {
		t.Run(name, func(t *testing.T) {
			f := kernelFamilies[0]
			n := newHosts(t, (*internet).twoNICs)
			conf := &xdp.Config{Sessions: 64}
			if pinned {
				conf.Pin = filepath.Join(nettest.BPFFS(t), "quicway")
			}
			n.load(conf)
			n.serve(f, &relay.Config{})
			n.attach(xdp.Native)
			a, b := n.connect(f)
			n.transfer(a, b, 1<<20)
			done, flowing := make(chan struct{}), make(chan error, 1)
			go func() { flowing <- flow(a, b, done) }()
			n.moves("before the relay drains the kernel forwards", n.relayed)

			drained := make(chan error, 1)
			go func() { drained <- n.server.Shutdown(context.Background()) }()
			for !n.server.Stats().Draining {
				time.Sleep(time.Millisecond)
			}
			for range 3 {
				n.moves("while the relay drains the kernel forwards", n.relayed)
			}
			select {
			case err := <-drained:
				t.Fatalf("the relay has not waited: %v", err)
			default:
			}
			close(done)
			if err := <-flowing; err != nil {
				t.Error(err)
			}
			_ = a.CloseWithError(0, "")
			_ = b.CloseWithError(0, "")
			if err := <-drained; err != nil {
				t.Error(err)
			}
			stage := xdptest.Relay(t, n.program)
			for r := range stage.Routes() {
				t.Errorf("an ID of session %d is left", r.Session)
			}
			if pinned {
				if err := errors.Join(n.program.Close(), xdp.Unpin(conf.Pin)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
