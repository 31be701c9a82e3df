// Package xdptest loads the XDP program for tests.
package xdptest

import (
	"errors"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/xdp"
)

// Load loads a program, and closes it at the end of the test. If the process lacks privileges, the test
// is skipped. If the kernel refuses a stage, the test fails.
func Load(tb nettest.TB, conf *xdp.Config) *xdp.Program {
	tb.Helper()
	program, err := xdp.Load(conf)
	if errors.Is(err, xdp.ErrPermission) {
		nettest.Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { program.Close() })
	for _, stage := range []xdp.Stage{xdp.RelayStage, xdp.QuotaStage, xdp.MonitorStage} {
		if err := program.StageErr(stage); errors.Is(err, xdp.ErrUnsupported) {
			tb.Fatal(err)
		}
	}
	return program
}

// Relay returns the relay stage of a program. If the program lacks it, the test fails.
func Relay(tb nettest.TB, program *xdp.Program) *datapath.Relay {
	tb.Helper()
	stage, err := program.Datapath().Relay()
	if err != nil {
		tb.Fatal(err)
	}
	return stage
}
