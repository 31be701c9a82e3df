package cid_test

import (
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
)

// A peer uses connection IDs that a relay can compute from the key.
func ExampleGenerator() {
	key := cid.NewKey()
	transport := &quic.Transport{
		ConnectionIDGenerator: cid.NewGenerator(key, cid.Peer, nil),
	}
	id, err := transport.ConnectionIDGenerator.GenerateConnectionID()
	if err != nil {
		panic(err)
	}
	fmt.Println(id.Len(), string(id.Bytes()) == string(key.ID(cid.Peer, 0).Bytes()))
	// Output: 12 true
}

// A relay knows the next IDs of a leg, and moves the window when they are used.
func ExampleWindow() {
	window := cid.NewWindow(0)
	lo, hi := window.Bounds()
	fmt.Println("knows", lo, "to", hi-1)
	drop, add := window.Hit(12)
	fmt.Println("forgets", drop.Len(), "learns", add.Len())
	// Output:
	// knows 0 to 15
	// forgets 4 learns 12
}

func ExampleMemoryStore() {
	store := cid.NewMemoryStore(nil)
	key, alice, bob := cid.NewKey(), cid.Owner{1}, cid.Owner{2}

	id := key.ID(cid.Peer, 0)
	if err := store.Put(id, cid.Association{Owner: alice, Session: 7}, time.Minute); err != nil {
		panic(err)
	}
	a, ok := store.Get(id)
	fmt.Println(a.Session, ok)

	err := store.Put(id, cid.Association{Owner: bob}, time.Minute)
	fmt.Println(errors.Is(err, cid.ErrConflict))
	// Output:
	// 7 true
	// true
}

// A router that routes QUIC packets by connection ID has to know the next IDs of each connection.
func Example() {
	store, owner := cid.NewMemoryStore(nil), cid.Owner{1}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	key := cid.NewKey() // the peer tells the router
	transport := &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(key, cid.Peer, nil)}
	defer transport.Close()

	learn := func() error {
		window := cid.NewWindow(0) // the router knows the IDs of these counters
		for counter, hi := window.Bounds(); counter < hi; counter++ {
			err := store.Put(key.ID(cid.Peer, counter), cid.Association{Owner: owner, Counter: counter}, time.Minute)
			if err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Println(learn(), store.Len())
	// Output: <nil> 16
}
