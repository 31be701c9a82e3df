package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/quicway/quicway/xdp"
)

// offload is the XDP program, if -xdp is set.
type offload struct {
	program *xdp.Program
	modes   string // the interfaces that it is attached to, and its modes
}

// newOffload loads the program with only the quota stage.
func newOffload(o *options) (*offload, error) {
	if o.xdp == "" {
		return &offload{modes: "userspace"}, nil
	}
	program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}})
	return &offload{program: program}, err
}

// attach attaches the program. It is called when the lists are loaded.
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

// close detaches the program.
func (k *offload) close() error {
	if k.program == nil {
		return nil
	}
	return k.program.Close()
}
