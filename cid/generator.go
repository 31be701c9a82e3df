package cid

import (
	"sync"

	"github.com/quic-go/quic-go"
)

// Generator gives a quic.Transport its connection IDs: those of one key, in
// the order of their counters. It is safe for concurrent use.
type Generator struct {
	onGenerate func(ID, uint64)

	mu   sync.Mutex // guards the following
	ids  *Deriver
	next uint64
}

var _ quic.ConnectionIDGenerator = (*Generator)(nil)

// NewGenerator returns a generator that begins with counter 0. onGenerate, if
// not nil, is told each ID and its counter before quic-go uses it; it must not
// block, nor call the generator.
func NewGenerator(key Key, role Role, onGenerate func(ID, uint64)) *Generator {
	if onGenerate == nil {
		onGenerate = func(ID, uint64) {}
	}
	return &Generator{ids: key.Deriver(role), onGenerate: onGenerate}
}

// GenerateConnectionID implements [quic.ConnectionIDGenerator].
func (g *Generator) GenerateConnectionID() (quic.ConnectionID, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := g.ids.ID(g.next)
	g.onGenerate(id, g.next)
	g.next++
	return quic.ConnectionIDFromBytes(id.b[:id.n]), nil
}

// ConnectionIDLen implements [quic.ConnectionIDGenerator].
func (g *Generator) ConnectionIDLen() int { return Len }

// Next returns the counter of the next ID: how many there have been.
func (g *Generator) Next() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}
