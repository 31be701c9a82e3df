package main

import (
	"os/exec"
	"strings"
)

// ndpiCommand runs nDPI's ndpiReader, which writes a line for each flow.
func ndpiCommand(_ *builder, capture, out string) ([]string, error) {
	path, err := exec.LookPath("ndpiReader")
	return []string{path, "-q", "-i", capture, "-C", out}, err
}

// ndpiLine reads a line of a flow.
func ndpiLine(line string) (connection, name string, ok bool) {
	const flow, protocol, serverName = 0, 10, 11
	f := strings.Split(line, ",")
	if len(f) <= serverName || !strings.HasPrefix(f[protocol], "QUIC") {
		return "", "", false
	}
	return f[flow], f[serverName], true
}
