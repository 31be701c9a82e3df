package nettest

import (
	"slices"
	"testing"
)

// TestProgram checks that a program gets an error from what Fatalf has stopped, and that all is cleaned up,
// also if it panics.
func TestProgram(t *testing.T) {
	var done []int
	run := func(stop func(*Program)) (err error) {
		var p Program
		defer p.End(&err)
		p.Cleanup(func() { done = append(done, 1) })
		p.Cleanup(func() { done = append(done, 2) })
		stop(&p)
		return nil
	}
	for want, stop := range map[string]func(*Program){
		"no host 5": func(p *Program) { p.Fatalf("no host %d", 5) },
		"no root":   func(p *Program) { p.Skip("no root") },
		"":          func(*Program) {},
	} {
		done = nil
		if err := run(stop); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
		if !slices.Equal(done, []int{2, 1}) {
			t.Errorf("%q: cleaned up in the order %v", want, done)
		}
	}
	defer func() {
		if recover() != "bug" {
			t.Error("a panic has been hidden")
		}
	}()
	_ = run(func(*Program) { panic("bug") })
}
