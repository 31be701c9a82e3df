package xdp

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/quicway/quicway/internal/nettest"
)

// loadFlows loads a program that counts flows.
func loadFlows(t *testing.T) *Program {
	t.Helper()
	p, err := Load(&Config{Sessions: 1, Flows: 100})
	if err != nil {
		nettest.Missing(t, fmt.Sprintf("loading the program: %+v", err))
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestLoadsFlows(t *testing.T) {
	p := loadFlows(t)
	if p.egress.missing != nil {
		t.Fatal(p.egress.missing)
	}
}

// TestFlowsEndWhileAsked: whoever closes them, or the program, need not wait for those
// who ask.
func TestFlowsEndWhileAsked(t *testing.T) {
	for _, end := range []func(*Program, *Flows) error{
		func(_ *Program, f *Flows) error { return f.Close() },
		func(p *Program, _ *Flows) error { return p.Close() },
	} {
		p := loadFlows(t)
		f, err := p.Flows()
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
