package main

import (
	"fmt"
	"strconv"
	"strings"
)

// startTailscale starts a server of Tailscale's net/udprelay. Both ends of each flow shake hands with it.
func startTailscale(b *bed) error {
	program, err := b.compile("tools/peers/udprelay")
	if err != nil {
		return err
	}
	out, err := b.serve(nil, program, "server", toRelay.String(), strconv.Itoa(b.shape.flows))
	if err != nil {
		return err
	}
	endpoints, err := lines(out)
	if err != nil {
		return err
	}
	stdin := strings.Join(endpoints, "\n")
	begins, err := b.knock(b.sender, stdin, program, "client", "0", toRelay.String(), b.senderOf(0).String())
	if err != nil {
		return err
	}
	far := fmt.Sprintf("%s:%d", relayToSink, relayPort)
	if _, err := b.knock(b.sink, stdin, program, "client", "1", far, b.sinkOf(0).String()); err != nil {
		return err
	}
	b.openAll(begins)
	return nil
}
