package main

import "strings"

// monitorCommand runs examples/monitor, which prints Zeek's quic.log.
func monitorCommand(b *builder, capture, _ string) ([]string, error) {
	program, err := b.compile("examples/monitor")
	return []string{program, "-format", "zeek", capture}, err
}

// monitorLine reads a line of quic.log.
func monitorLine(line string) (connection, name string, ok bool) {
	const uid, serverName, fields = 1, 10, 13
	f := strings.Split(line, "\t")
	if len(f) != fields || strings.HasPrefix(line, "#") {
		return "", "", false
	}
	return f[uid], f[serverName], true
}
