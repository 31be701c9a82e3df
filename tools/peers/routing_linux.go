package main

// startRouting lets the kernel forward, without a relay.
func startRouting(b *bed) error {
	for i := range b.shape.flows {
		b.open([]byte{0x40}, b.sinkOf(i))
	}
	return nil
}
