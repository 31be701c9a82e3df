package main

import "strconv"

// startPion starts a server of pion/turn.
func startPion(b *bed) error {
	program, err := b.compile("tools/peers/turn")
	if err != nil {
		return err
	}
	out, err := b.serve(nil, program, "server", toRelay.String(), relayToSink)
	if err != nil {
		return err
	}
	if _, err := lines(out); err != nil {
		return err
	}
	return b.openChannels()
}

// openChannels opens flows that are channels of a TURN server, by the client of pion/turn.
func (b *bed) openChannels() error {
	program, err := b.compile("tools/peers/turn")
	if err != nil {
		return err
	}
	begins, err := b.knock(b.sender, "", program, "client", toRelay.String(),
		b.senderOf(0).String(), b.sinkOf(0).String(), strconv.Itoa(b.shape.flows), strconv.Itoa(packetSize))
	if err != nil {
		return err
	}
	b.openAll(begins)
	return nil
}
