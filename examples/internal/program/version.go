package program

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// shownRevision is how many characters of a revision are printed.
const shownRevision = 12

// versionLine returns a line with the version of a program: that of the module, the revision that
// it was built from, and what it was built with. info may be nil.
func versionLine(name string, info *debug.BuildInfo) string {
	version, revision, modified, quic := "(unknown)", "", "", ""
	if info != nil {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(len(s.Value), shownRevision)]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " and changes"
			}
		}
		for _, m := range info.Deps {
			if m.Path == "github.com/quic-go/quic-go" {
				quic = ", quic-go " + m.Version
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s", name, version)
	if revision != "" {
		fmt.Fprintf(&out, " (revision %s%s)", revision, modified)
	}
	fmt.Fprintf(&out, "%s, %s %s/%s", quic, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return out.String()
}
