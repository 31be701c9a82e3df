package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/quicway/quicway/xdp"
)

// offload is the kernel's program, if it was asked for.
type offload struct {
	program *xdp.Program
	modes   string // what it is attached to, and how
}

// newOffload loads the program, with the quota stage alone.
func newOffload(o *options) (*offload, error) {
	if o.xdp == "" {
		return &offload{modes: "userspace"}, nil
	}
	program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
	return &offload{program: program}, err
}

// attach attaches it, once the lists are known.
func (k *offload) attach(o *options) error {
	if k.program == nil {
		return nil
	}
	var modes []string
	for _, iface := range strings.Split(o.xdp, ",") {
		mode, err := k.program.Attach(iface, o.mode)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "the kernel drops on %s in %v mode\n", iface, mode)
		modes = append(modes, fmt.Sprintf("%s %v", iface, mode))
	}
	k.modes = "XDP on " + strings.Join(modes, ", ")
	return nil
}

// close detaches it.
func (k *offload) close() error {
	if k.program == nil {
		return nil
	}
	return k.program.Close()
}
