package nettest

import (
	"fmt"
	"testing"
)

// TestSimultaneousOpen checks for each pair of NATs whether hole punching can work: both
// sides learn their outside address from an observer, send to each other at the same
// time, and answer to the address from which packets come.
func TestSimultaneousOpen(t *testing.T) {
	type side struct {
		name    string
		gateway Gateway
	}
	sides := []side{
		{"full cone", Gateway{}},
		{"address-restricted", Gateway{Filtering: AddressDependent}},
		{"port-restricted", Gateway{Filtering: AddressPortDependent}},
		{"address-dependent", Gateway{Mapping: AddressDependent, Filtering: AddressPortDependent}},
		{"symmetric", Gateway{Mapping: AddressPortDependent, Filtering: AddressPortDependent}},
	}
	// If the mapping depends on the target, the observer sees another outside port than
	// the peer, whose filter must not look at the port then.
	works := [5][5]bool{
		{true, true, true, true, true},
		{true, true, true, true, true},
		{true, true, true, false, false},
		{true, true, false, false, false},
		{true, true, false, false, false},
	}
	for i, a := range sides {
		for j, b := range sides {
			t.Run(fmt.Sprintf("%s and %s", a.name, b.name), func(t *testing.T) {
				n := New(uint64(i*len(sides) + j))
				a.gateway.Address, b.gateway.Address = "203.0.113.1", "203.0.113.2"
				alice := n.LAN(a.gateway).Listen("192.168.1.2:1000")
				bob := n.LAN(b.gateway).Listen("192.168.7.2:1000")
				if got := punch(t, alice, bob, n.Listen(observer)); got != works[i][j] {
					t.Errorf("got %v, want %v", got, works[i][j])
				}
			})
		}
	}
}

// punch reports whether packets of both sides arrive at the other.
func punch(t *testing.T, alice, bob, observer *Conn) bool {
	t.Helper()
	toBob, toAlice := seen(t, bob, observer), seen(t, alice, observer)
	var aliceHears, bobHears bool
	for range 4 {
		send(t, alice, toBob)
		send(t, bob, toAlice)
		if from, ok := heard(bob); ok {
			toAlice, bobHears = from, true
		}
		if from, ok := heard(alice); ok {
			toBob, aliceHears = from, true
		}
	}
	return aliceHears && bobHears
}
