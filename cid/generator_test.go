package cid_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
)

func TestGenerator(t *testing.T) {
	key := cid.NewKey()
	var generated []uint64
	g := cid.NewGenerator(key, cid.Relay, func(id cid.ID, counter uint64) {
		if id != key.ID(cid.Relay, counter) {
			t.Errorf("got ID %v for counter %d", id, counter)
		}
		generated = append(generated, counter)
	})
	if g.ConnectionIDLen() != cid.Len {
		t.Errorf("length %d, want %d", g.ConnectionIDLen(), cid.Len)
	}
	for counter := range uint64(5) {
		if g.Next() != counter {
			t.Errorf("next counter is %d, want %d", g.Next(), counter)
		}
		id, err := g.GenerateConnectionID()
		if want := key.ID(cid.Relay, counter); err != nil || string(id.Bytes()) != string(want.Bytes()) {
			t.Errorf("ID %d is %v, %v, want %v", counter, id, err, want)
		}
	}
	if want := []uint64{0, 1, 2, 3, 4}; !slices.Equal(generated, want) {
		t.Errorf("onGenerate got counters %v, want %v", generated, want)
	}
}

// TestGeneratorIsConcurrent checks that each counter is used once when several goroutines
// use a generator.
func TestGeneratorIsConcurrent(t *testing.T) {
	const workers, each = 8, 500
	g := cid.NewGenerator(cid.NewKey(), cid.Peer, nil)
	var all sync.Map
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				id, err := g.GenerateConnectionID()
				if err != nil {
					t.Error(err)
				}
				if _, twice := all.LoadOrStore(id, true); twice {
					t.Errorf("%v twice", id)
				}
			}
		})
	}
	wg.Wait()
	if g.Next() != workers*each {
		t.Errorf("%d counters used, want %d", g.Next(), workers*each)
	}
}

var _ quic.ConnectionIDGenerator = (*cid.Generator)(nil)
