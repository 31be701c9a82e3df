package main

import "errors"

// startHAProxy has nothing to start.
func startHAProxy(*bed) error {
	return errors.New("HAProxy relays TCP; of UDP it takes logs, and QUIC that ends at it")
}
