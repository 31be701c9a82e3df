package monitor

import (
	"bytes"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/decap"
)

// TestConcurrent checks that all methods may be called while packets come, and that
// a reader of events may leave.
func TestConcurrent(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 1<<20) })
	for i := range 100 { // other connections, to be listed
		all = append(all, establishedBy(t, clientAddr, []byte{byte(i), 1, 2, 3, 4, 5, 6, 7}, []byte{byte(i), 9, 9, 9})...)
	}
	source, err := NewReader(bytes.NewReader(pcapOf(t, decap.LinkRaw, all...)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, &Config{MaxConnections: 50, EventQueue: 2})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 3 {
		patient, hasty := m.Events(t.Context()), m.Events(t.Context())
		readers.Go(func() {
			for range patient {
			}
		})
		readers.Go(func() {
			for range hasty {
				break
			}
		})
	}
	done := make(chan struct{})
	for _, ask := range []func(){
		func() { m.Stats() },
		func() {
			for c := range m.Connections() {
				_ = c.LogValue()
			}
		},
		func() {
			for range m.Tracker().Flows() {
				break
			}
			for range m.Tracker().IDs() {
			}
			for range m.Tracker().Sources() {
			}
			for range m.Tracker().Destinations() {
			}
			for range m.Tracker().Potential() {
			}
		},
		func() {
			for range m.Events(t.Context()) {
				break
			}
		},
	} {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					ask()
				}
			}
		})
	}
	err = m.Run(t.Context())
	close(done)
	readers.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Stats(); s.Packets != uint64(len(all)) || s.EventsLost != 0 {
		t.Errorf("got %d packets and lost %d events, want %d and none", s.Packets, s.EventsLost, len(all))
	}
	bounded(t, m.Tracker())
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.readers) != 0 {
		t.Errorf("%d readers of events are still there", len(m.readers))
	}
}
