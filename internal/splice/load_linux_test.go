package splice

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/quicway/quicway/internal/test/nettest"
)

// mustLoad loads the programs, and closes them at the end of the test. If the process lacks
// privileges or the kernel TCX, the test is skipped.
func mustLoad(tb testing.TB, conf *Config) *Program {
	tb.Helper()
	p, err := Load(conf)
	if errors.Is(err, ErrPermission) || errors.Is(err, ErrUnsupported) && haveTCX() != nil {
		nettest.Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatalf("%v%s", err, verifierLog(err))
	}
	tb.Cleanup(func() {
		if err := p.Close(tb.Context()); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return p
}

// verifierLog returns the end of the verifier's log.
func verifierLog(err error) string {
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return ""
	}
	return fmt.Sprintf("\n%-60v", verifier)
}

// TestLoad checks that the kernel accepts the programs, and logs how many instructions its verifier
// has processed.
func TestLoad(t *testing.T) {
	p := mustLoad(t, nil)
	for _, prog := range []*ebpf.Program{p.objects.SpliceIngress, p.objects.SpliceEgress} {
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := info.VerifiedInstructions()
		t.Logf("Linux %s: %s: %d instructions verified", kernelRelease(), info.Name, n)
	}
}

// TestKernels checks that Load says so if the kernel is too old.
func TestKernels(t *testing.T) {
	if nettest.KernelAtLeast(t, 6, 6) {
		mustLoad(t, nil)
		return
	}
	_, err := Load(nil)
	if errors.Is(err, ErrPermission) {
		nettest.Missing(t, err.Error())
	}
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "6.6") {
		t.Errorf("%v, want %v and the oldest version", err, ErrUnsupported)
	}
}
