package main

import (
	"os/exec"
	"strconv"
)

// startCoturn starts coturn. The flows are channels (RFC 8656 §12).
func startCoturn(b *bed) error {
	path, err := exec.LookPath("turnserver")
	if err != nil {
		return err
	}
	if _, err := b.serve(nil, path, "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-stdout-log",
		"--log-file", "/dev/null", "--pidfile", b.dir+"/coturn.pid", "--allow-loopback-peers",
		"-L", relayToSender, "-p", strconv.Itoa(relayPort), "-E", relayToSink, "-a", "-u", "user:password", "-r", "realm"); err != nil {
		return err
	}
	if err := b.await(1); err != nil {
		return err
	}
	return b.openChannels()
}
