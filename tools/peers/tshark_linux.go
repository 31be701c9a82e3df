package main

import (
	"os/exec"
	"strings"
)

// tsharkCommand runs tshark, which prints a line for each ClientHello of a connection of QUIC.
func tsharkCommand(_ *builder, capture, _ string) ([]string, error) {
	path, err := exec.LookPath("tshark")
	return []string{
		path, "-n", "-r", capture, "-Y", "quic && tls.handshake.type == 1", "-T", "fields",
		"-e", "quic.connection.number", "-e", "tls.handshake.extensions_server_name",
	}, err
}

// tsharkLine reads such a line.
func tsharkLine(line string) (connection, name string, ok bool) {
	return strings.Cut(line, "\t")
}
