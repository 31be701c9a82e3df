package datapath

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
)

// loadFlows loads a program with the monitor stage.
func loadFlows(t *testing.T) *Program {
	t.Helper()
	return mustLoad(t, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 1, Flows: 100})
}

// TestEgressNeedsTCX checks that the monitor stage has its egress part if the kernel has TCX, and
// that otherwise the error says which Linux is needed.
func TestEgressNeedsTCX(t *testing.T) {
	missing := loadFlows(t).egress.missing
	if nettest.KernelAtLeast(t, 6, 6) {
		if missing != nil {
			t.Error(missing)
		}
		return
	}
	if !errors.Is(missing, ErrUnsupported) || !strings.Contains(missing.Error(), "6.6") {
		t.Errorf("%v, want %v and the Linux that it needs", missing, ErrUnsupported)
	}
}

// TestMonitorCloseWhileInUse checks that Close of the Monitor or the Program returns while other
// goroutines use the Monitor, and ends their calls.
func TestMonitorCloseWhileInUse(t *testing.T) {
	for _, end := range []func(*Program, *Monitor) error{
		func(_ *Program, f *Monitor) error { return f.Close() },
		func(p *Program, _ *Monitor) error { return p.Close() },
	} {
		p := loadFlows(t)
		f, err := p.Monitor()
		if err != nil {
			t.Fatal(err)
		}
		var callers, begun sync.WaitGroup
		for range 4 {
			begun.Add(1)
			callers.Go(func() {
				var once sync.Once
				for range 1000 {
					if f.Pending() {
						t.Error("Pending is true, but no packet was sent")
					}
					once.Do(begun.Done)
				}
				for { // until Close
					f.Pending()
					if _, _, err := f.Lookup(FlowKey{}); errors.Is(err, ErrClosed) {
						return
					}
				}
			})
		}
		callers.Go(func() {
			if err := f.Read(new(Sample)); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want %v", err, ErrClosed)
			}
		})
		begun.Wait()
		if err := end(p, f); err != nil {
			t.Error(err)
		}
		callers.Wait()
		if f.Pending() {
			t.Error("Pending is true after Close")
		}
	}
}

// TestMonitorClockThatIsSet checks that Now goes with the times of samples and flows when the wall
// clock has been set since the monitor was opened.
func TestMonitorClockThatIsSet(t *testing.T) {
	p := loadFlows(t)
	m, err := p.Monitor()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f := packet.Frame{
		Src: netip.MustParseAddrPort("10.0.0.1:1000"), Dst: netip.MustParseAddrPort("192.0.2.1:443"),
		TTL: 64, Payload: append([]byte{0x40}, make([]byte, 60)...),
	}
	opened, started := m.opened, m.started
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		m.opened, m.started = nettest.SetClock(opened, by), started+int64(by)
		if _, _, err := p.Test(1, f.Build(edgeMAC, peerMAC)); err != nil {
			t.Fatal(err)
		}
		var s Sample
		if err := m.Read(&s); err != nil {
			t.Fatal(err)
		}
		if d := m.Now().Sub(s.Time); d.Abs() > time.Minute {
			t.Errorf("clock set by %v: a packet of this moment was %v ago", -by, d)
		}
	}
}
