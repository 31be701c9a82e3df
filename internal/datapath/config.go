package datapath

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/quicway/quicway/internal/ratelog"
)

// Defaults of [Config].
const (
	DefaultFlows = 1 << 17

	defaultSessions = 65536
	idsPerSession   = 10
	idsPerPinned    = 32
	defaultPrefixes = 1 << 18
	defaultSources  = 65536
	defaultAttempts = 65536
)

// Limits of [Config]: maxSessions is the largest relay.Config.MaxSessions, maxIDs is more
// than a relay needs for so many sessions, and maxEntries bounds the maps of the quota stage.
const (
	maxSessions = 1 << 24
	maxIDs      = 1 << 28
	maxEntries  = 1 << 26
	maxFlows    = 1 << 26
)

// Config configures a [Program]. xdp.Config documents the fields, which are the same.
type Config struct {
	Stages   []Stage // nil: RelayStage alone
	Sessions int
	IDs      int
	Prefixes int
	Sources  int
	Attempts int
	Flows    int
	Pin      string
	Logger   *slog.Logger

	// reorders makes the program that of a processor that reorders loads, for tests.
	reorders bool
}

// withDefaults returns a copy of c with the defaults filled in. c may be nil. The bounds of
// stages that Stages lacks are 0.
func (c *Config) withDefaults() (*Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	if len(out.Stages) == 0 {
		out.Stages = []Stage{RelayStage}
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("xdp: %w: %w", ErrConfig, err)
	}
	out.Stages = slices.Compact(slices.Sorted(slices.Values(out.Stages)))
	if out.has(RelayStage) {
		setDefault(&out.Sessions, defaultSessions)
		perSession := idsPerSession
		if out.Pin != "" {
			perSession = idsPerPinned
		}
		setDefault(&out.IDs, min(perSession*out.Sessions, maxIDs))
	}
	if out.has(QuotaStage) {
		setDefault(&out.Prefixes, defaultPrefixes)
		setDefault(&out.Sources, defaultSources)
		setDefault(&out.Attempts, defaultAttempts)
	}
	if out.has(MonitorStage) {
		setDefault(&out.Flows, DefaultFlows)
	}
	out.Logger = ratelog.New(out.Logger)
	return &out, nil
}

// check returns an error if a stage does not exist, if a bound is out of range, or if a bound
// is set for a stage that Stages lacks.
func (c *Config) check() error {
	for _, stage := range c.Stages {
		if stage >= numStages {
			return fmt.Errorf("there is no stage %d", stage)
		}
	}
	for _, bound := range []struct {
		name       string
		value, max int
		stage      Stage
	}{
		{"Sessions", c.Sessions, maxSessions, RelayStage},
		{"IDs", c.IDs, maxIDs, RelayStage},
		{"Prefixes", c.Prefixes, maxEntries, QuotaStage},
		{"Sources", c.Sources, maxEntries, QuotaStage},
		{"Attempts", c.Attempts, maxEntries, QuotaStage},
		{"Flows", c.Flows, maxFlows, MonitorStage},
	} {
		switch {
		case bound.value < 0 || bound.value > bound.max:
			return fmt.Errorf("%s is %d, want 0 to %d", bound.name, bound.value, bound.max)
		case bound.value > 0 && !c.has(bound.stage):
			return fmt.Errorf("%s is set, but Stages lacks the %v stage", bound.name, bound.stage)
		}
	}
	return nil
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// has says whether Stages contains a stage.
func (c *Config) has(stage Stage) bool { return slices.Contains(c.Stages, stage) }

// only returns a copy of the configuration for some of its stages.
func (c *Config) only(stages []Stage) *Config {
	out := *c
	out.Stages = stages
	if !out.has(RelayStage) {
		out.Sessions, out.IDs = 0, 0
	}
	if !out.has(QuotaStage) {
		out.Prefixes, out.Sources, out.Attempts = 0, 0, 0
	}
	if !out.has(MonitorStage) {
		out.Flows = 0
	}
	return &out
}
