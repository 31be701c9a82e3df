package xdp

import (
	"log/slog"

	"github.com/quicway/quicway/internal/datapath"
)

// DefaultFlows is the default of [Config.Flows]. It fits the default of
// monitor.Config.MaxConnections.
const DefaultFlows = datapath.DefaultFlows

// Config configures a [Program]. The zero value, and nil, mean a program with a relay stage and
// the default bounds. A bound may be set only for a stage that is in Stages.
type Config struct {
	// Stages are the stages of the program. A stage that is left out costs nothing. Empty
	// means RelayStage alone. Without CAP_PERFMON QuotaStage knows the lists and the rate of
	// packets, but leaves Initials to Go.
	Stages []Stage

	// Sessions bounds the sessions that the relay stage forwards for. Go forwards for the
	// others. Each takes 256 bytes, allocated by Load. 0 means 65 536.
	Sessions int
	// IDs is how many connection IDs of these sessions there is room for. Each takes 13 to 26
	// bytes, allocated by Load. Go forwards for IDs without room. 0 means ten for each
	// session, or 32 with Pin.
	IDs int

	// Prefixes bounds the prefixes on the allow list of the quota stage, those on its deny
	// list, and its exceptions, each. A prefix takes about 110 bytes while it is in use,
	// and 32 allocated by Load. 0 means 262 144.
	Prefixes int
	// Sources bounds the sources whose rates the quota stage keeps: about 100 bytes each,
	// allocated by Load. The source that was silent for longest makes room for a new one.
	// Sources also bounds the refused sources, which take as much while they are in use.
	// 0 means 65 536.
	Sources int
	// Attempts bounds the connection attempts that the quota stage remembers, and their
	// addresses: about 130 bytes each, allocated by Load. The oldest makes room for a new
	// one. 0 means 65 536.
	Attempts int

	// Flows bounds the flows that the monitor stage counts: about 620 bytes each, allocated
	// by Load. A flow that has been silent for long makes room for a new one. 0 means
	// DefaultFlows.
	Flows int

	// Pin is a directory on a BPF file system, such as /sys/fs/bpf/quicway. Load makes the
	// directory if it does not exist. Only root and the process's user may be able to write to
	// it. With Pin the program stays attached and forwards on when the process ends, however it
	// ends. The next process that loads with the same Pin takes over: the maps of the relay
	// stage in Load, and each interface in Attach, without losing a packet. Maps of other sizes,
	// or of another version, are not taken over, and work until then. The quota stage and the monitor stage begin anew
	// with each process. The verdicts of the old quota stage hold until Attach, but not beyond
	// their lease. [Unpin] ends it all. Empty means that the program ends with the process.
	Pin string

	// Logger logs changes of interfaces and what is not taken over, never single packets. Of
	// log lines of one kind, the first 20 are logged at once, and then one a second. nil
	// discards.
	Logger *slog.Logger
}

// datapath converts the configuration.
func (c *Config) datapath() *datapath.Config {
	if c == nil {
		return nil
	}
	out := &datapath.Config{
		Sessions: c.Sessions, IDs: c.IDs,
		Prefixes: c.Prefixes, Sources: c.Sources, Attempts: c.Attempts,
		Flows: c.Flows,
		Pin:   c.Pin, Logger: c.Logger,
	}
	for _, stage := range c.Stages {
		out.Stages = append(out.Stages, datapath.Stage(stage))
	}
	return out
}

// Stage is a part of the program that works for one package.
type Stage uint8

// The stages.
const (
	// RelayStage forwards packets for package relay.
	RelayStage = Stage(datapath.RelayStage)
	// QuotaStage drops packets for package quota.
	QuotaStage = Stage(datapath.QuotaStage)
	// MonitorStage counts packets for package monitor.
	MonitorStage = Stage(datapath.MonitorStage)
)

// String returns the stage in one word: relay, quota or monitor.
func (s Stage) String() string { return datapath.Stage(s).String() }
