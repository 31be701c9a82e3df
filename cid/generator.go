package cid

import (
	"sync"

	"github.com/quic-go/quic-go"
)

// Generator is the ConnectionIDGenerator of a quic.Transport. It makes the IDs of one key
// in the order of their counters. It is safe for concurrent use.
type Generator struct {
	onGenerate func(ID, uint64)

	mu   sync.Mutex // guards the following
	ids  *Deriver
	next uint64
}

var _ quic.ConnectionIDGenerator = (*Generator)(nil)

// NewGenerator returns a generator that begins with counter 0. onGenerate, if not nil, is
// called with each ID and its counter before quic-go uses the ID. It must not block, and
// must not call the generator.
func NewGenerator(key Key, role Role, onGenerate func(ID, uint64)) *Generator {
	if onGenerate == nil {
		onGenerate = func(ID, uint64) {}
	}
	return &Generator{ids: key.Deriver(role), onGenerate: onGenerate}
}

// GenerateConnectionID implements [quic.ConnectionIDGenerator]. It never fails.
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

// Next returns the counter of the next ID, which is the number of IDs made so far.
func (g *Generator) Next() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}
