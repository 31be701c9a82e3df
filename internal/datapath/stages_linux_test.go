package datapath

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// mustLoad loads a program, and closes it at the end of the test. If the process lacks privileges,
// the test is skipped. If the kernel refuses a stage, the test fails.
func mustLoad(tb testing.TB, conf *Config) *Program {
	tb.Helper()
	p, err := Load(conf)
	if errors.Is(err, ErrPermission) {
		nettest.Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatalf("%v%s", err, verifierLog(err))
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	if err := errors.Join(p.refused[:]...); err != nil {
		tb.Fatalf("%v%s", err, verifierLog(err))
	}
	return p
}

// combinations are sets of stages that a program may have.
var combinations = [][]Stage{
	{RelayStage}, {QuotaStage}, {MonitorStage},
	{RelayStage, QuotaStage}, {RelayStage, MonitorStage}, {QuotaStage, MonitorStage},
	{RelayStage, QuotaStage, MonitorStage},
}

// TestStages checks that the kernel accepts all stages, alone and together, and without
// CAP_PERFMON those that the documentation of package xdp lists. Each log line that begins with
// "stages:" is a row of the table in docs/kernels.md.
func TestStages(t *testing.T) {
	const child = "QUICWAY_TEST_GUARDED"
	if os.Getenv(child) != "" {
		loadCombinations(t, "without")
		return
	}
	if os.Geteuid() != 0 {
		nettest.Missing(t, "loading a program needs root")
	}
	loadCombinations(t, "with")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestStages$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := nettest.RunWithCapabilities(cmd, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	if err != nil {
		t.Errorf("without CAP_PERFMON: %v\n%s", err, out)
		return
	}
	for line := range strings.Lines(string(out)) { // for the table
		if _, row, ok := strings.Cut(line, "stages: "); ok {
			t.Log("stages: " + strings.TrimSpace(row))
		}
	}
}

// loadCombinations loads each combination, and logs a row about it.
func loadCombinations(t *testing.T, perfmon string) {
	for _, stages := range combinations {
		all := &Config{Stages: []Stage{RelayStage, QuotaStage, MonitorStage}, Sessions: 16, Prefixes: 16, Sources: 16, Attempts: 16, Flows: 16}
		p, err := Load(all.only(stages))
		if perfmon == "without" && !nettest.KernelAtLeast(t, 6, 18) {
			wantsPerfmon(t, p, err)
			t.Logf("stages: %s %s %s %s - - 0", kernelRelease(), runtime.GOARCH, perfmon, names(stages))
			continue
		}
		if err != nil {
			t.Errorf("%v %s CAP_PERFMON: %v%s", stages, perfmon, err, verifierLog(err))
			continue
		}
		logRow(t, p, stages, perfmon)
		for _, stage := range stages {
			if err := p.StageErr(stage); err != nil && !mayLack(stages, stage, perfmon) {
				t.Errorf("%v %s CAP_PERFMON: %v%s", stages, perfmon, err, verifierLog(err))
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// verifierLog returns the end of the verifier's log.
func verifierLog(err error) string {
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return ""
	}
	return fmt.Sprintf("\n%-60v", verifier)
}

// mayLack says whether the kernel may refuse a stage: without CAP_PERFMON it may refuse the monitor
// stage beside others.
func mayLack(stages []Stage, stage Stage, perfmon string) bool {
	return perfmon == "without" && stage == MonitorStage && len(stages) > 1
}

// logRow logs which stages were loaded, for the table in docs/kernels.md.
func logRow(t *testing.T, p *Program, stages []Stage, perfmon string) {
	t.Helper()
	info, err := p.objects.Quicway.Info()
	if err != nil {
		t.Fatal(err)
	}
	verified, _ := info.VerifiedInstructions()
	egress := "-"
	if p.egress != nil {
		egress = "yes"
		if p.egress.missing != nil {
			egress = "no"
		}
	}
	t.Logf("stages: %s %s %s %s %s %s %d", kernelRelease(), runtime.GOARCH, perfmon, names(stages), names(p.stages), egress, verified)
}

// names writes stages as one word.
func names(stages []Stage) string {
	var words []string
	for _, s := range stages {
		words = append(words, s.String())
	}
	return strings.Join(words, "+")
}

// wantsPerfmon checks the error of a kernel that accepts no stage without CAP_PERFMON.
func wantsPerfmon(t *testing.T, p *Program, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("Linux %s accepts stages without CAP_PERFMON: update the documentation", kernelRelease())
		p.Close()
		return
	}
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CAP_PERFMON") || !strings.Contains(err.Error(), oldestNoPerfmon) {
		t.Errorf("%v, want %v and what is missing", err, ErrUnsupported)
	}
}

// TestStageErr checks that StageErr distinguishes stages that the configuration lacks from stages
// that the kernel has refused.
func TestStageErr(t *testing.T) {
	p := mustLoad(t, &Config{Sessions: 1})
	if err := p.StageErr(RelayStage); err != nil {
		t.Error(err)
	}
	if err := p.StageErr(MonitorStage); !errors.Is(err, ErrConfig) {
		t.Errorf("%v, want %v", err, ErrConfig)
	}
	p.refused[MonitorStage] = refusedError(MonitorStage, []Stage{RelayStage}, errors.New("math between pointers"))
	err := p.StageErr(MonitorStage)
	for _, word := range []string{"monitor stage beside [relay]", kernelRelease(), "Linux " + oldestKernel} {
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %v with %q", err, ErrUnsupported, word)
		}
	}
	p.refused[QuotaStage] = refusedError(QuotaStage, nil, errors.New("math between pointers"))
	if _, err := p.Monitor(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Monitor: %v, want %v", err, ErrUnsupported)
	}
	if _, err := p.Quota(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Quota: %v, want %v", err, ErrUnsupported)
	}
}
