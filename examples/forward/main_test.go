package main

import (
	"testing"
	"time"

	"github.com/quicway/quicway/examples/forward/internal/ports"
)

// TestCheck checks that flags which would have no effect are refused.
func TestCheck(t *testing.T) {
	permits := ports.Permits{{}}
	for name, change := range map[string]func(*options){
		"-allow":         func(o *options) { o.allow = []string{"any"} },
		"-permit":        func(o *options) { o.permit = permits },
		"-permit-listen": func(o *options) { o.bind = permits },
	} {
		o := &options{to: "bob", here: []ports.Spec{{}}, udpIdle: time.Minute}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		if change(o); o.check() == nil {
			t.Errorf("%s is allowed with -to", name)
		}
	}
}
