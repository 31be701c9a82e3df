package metrics

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// modulePath is the path of the module that this package is part of.
const modulePath = "github.com/quicway/quicway"

const buildHelp = "1. The labels have the versions of Quicway and of Go that the program was built with."

// BuildInfo returns a collector for quicway_build_info, which is 1 and has in its labels the
// version of Quicway, or "(devel)" if it is not known, and that of Go.
func BuildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace:   namespace,
		Name:        "build_info",
		Help:        buildHelp,
		ConstLabels: prometheus.Labels{"version": version(debug.ReadBuildInfo()), "goversion": runtime.Version()},
	})
	info.Set(1)
	return info
}

// version returns the version of this module in a program.
func version(build *debug.BuildInfo, ok bool) string {
	if !ok {
		return "(devel)"
	}
	for _, m := range append([]*debug.Module{&build.Main}, build.Deps...) {
		if m.Path != modulePath {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}
