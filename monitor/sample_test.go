package monitor

import (
	"flag"
	"os"
	"testing"
	"testing/synctest"

	"github.com/quicway/quicway/internal/decap"
)

var update = flag.Bool("update", false, "write "+sampleFile)

// sampleFile is the capture that the example is tested with.
const sampleFile = "../examples/monitor/testdata/sample.pcap"

// TestSample checks that the capture of the example's tests has a connection that a
// NAT rebinds, and one with markup in its name.
func TestSample(t *testing.T) {
	if *update {
		all := play(t, nil, false, func(s *scene) {
			s.tls.ServerName = "<b>markup</b>.example"
			s.exchange(s.dial(nil), 5000)
			s.tls = s.tls.Clone()
			s.tls.ServerName = "moving.example"
			conn := s.dial(nil)
			s.exchange(conn, 20000)
			synctest.Wait()
			s.network.Rebind(s.client, "192.0.2.1:50123")
			s.exchange(conn, 20000)
		})
		if err := os.WriteFile(sampleFile, pcapOf(t, decap.LinkRaw, all...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source, err := OpenFile(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(connections(m.Tracker())); got != 2 {
		t.Errorf("got %d connections, want 2", got)
	}
}
