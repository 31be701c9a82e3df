package datapath

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// loadFlows loads a program that counts flows.
func loadFlows(t *testing.T) *Program {
	t.Helper()
	return mustLoad(t, &Config{Stages: []Stage{RelayStage, MonitorStage}, Sessions: 1, Flows: 100})
}

// TestLoadsFlows: what leaves is seen where the kernel has TCX; elsewhere the error
// says what is missing.
func TestLoadsFlows(t *testing.T) {
	missing := loadFlows(t).egress.missing
	if nettest.KernelAtLeast(t, 6, 6) {
		if missing != nil {
			t.Error(missing)
		}
		return
	}
	if !errors.Is(missing, ErrUnsupported) || !strings.Contains(missing.Error(), "6.6") {
		t.Errorf("%v, want %v and the Linux that has it", missing, ErrUnsupported)
	}
}

// TestFlowsEndWhileAsked: whoever closes them, or the program, need not wait for those
// who ask.
func TestFlowsEndWhileAsked(t *testing.T) {
	for _, end := range []func(*Program, *Monitor) error{
		func(_ *Program, f *Monitor) error { return f.Close() },
		func(p *Program, _ *Monitor) error { return p.Close() },
	} {
		p := loadFlows(t)
		f, err := p.Monitor()
		if err != nil {
			t.Fatal(err)
		}
		var asking, begun sync.WaitGroup
		for range 4 {
			begun.Add(1)
			asking.Go(func() {
				var once sync.Once
				for range 1000 {
					if f.Pending() {
						t.Error("something waits where nothing was sent")
					}
					once.Do(begun.Done)
				}
				for { // until it ends
					f.Pending()
					if _, _, err := f.Lookup(FlowKey{}); errors.Is(err, ErrClosed) {
						return
					}
				}
			})
		}
		asking.Go(func() {
			if err := f.Read(new(Sample)); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want %v", err, ErrClosed)
			}
		})
		begun.Wait()
		if err := end(p, f); err != nil {
			t.Error(err)
		}
		asking.Wait()
		if f.Pending() {
			t.Error("something waits after the end")
		}
	}
}
