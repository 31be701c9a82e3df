package sni

import (
	"bytes"
	"errors"

	"github.com/quicway/quicway/internal/hello"
	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
)

const (
	// maxHeld and maxHeldBytes bound the datagrams of an attempt that are held until an
	// upstream has answered.
	maxHeld      = 20
	maxHeldBytes = 24 << 10
	// minFirstID is the minimum length of the Destination Connection ID of a client's
	// first Initial (RFC 9000 §7.2).
	minFirstID = 8
	// maxPeerFlows is the number of flows between two addresses.
	maxPeerFlows = 16
)

// attempt is what a client has sent before an upstream has answered. In an attempt of a version
// that is not known there is nothing to read.
type attempt struct {
	id      connID // that the client has chosen
	version wire.Version
	dialect wire.Dialect
	keys    *wire.InitialKeys
	stream  wire.CryptoStream
	decided bool // the ClientHello is complete

	held   []udp.Message  // in their order, with copies of the data
	size   int            // of held, in bytes
	sent   bool           // an upstream has got what is held
	tries  []upstreamAddr // addresses to try
	rest   []*upstream    // upstreams to try afterwards
	opaque bool           // of a version that is not known
}

var (
	errUndecryptable = errors.New("an Initial cannot be decrypted")
	errNotHello      = errors.New("the first handshake message is not a ClientHello")
)

// read reads the Initials in a datagram.
func (a *attempt) read(datagram []byte) error {
	for rest := datagram; len(rest) > 0 && wire.IsLong(rest[0]); {
		h, err := a.dialect.Parse(rest)
		if err != nil || h.Version.Dialect() != a.dialect || idOf(h.DstID) != a.id {
			return nil // padding, or what only the upstream understands
		}
		if h.Type == wire.Initial {
			if err := a.readInitial(&h); err != nil {
				return err
			}
		}
		rest = rest[len(h.Packet):]
	}
	return nil
}

func (a *attempt) readInitial(h *wire.Header) error {
	opened, err := a.keys.Open(nil, h)
	if err != nil {
		return errUndecryptable
	}
	for f, err := range a.dialect.CryptoFrames(opened.Payload) {
		if err != nil {
			return err
		}
		if err := a.stream.Add(f.Offset, f.Data); err != nil {
			return err
		}
	}
	return nil
}

// message returns the ClientHello, or nil if it is not complete.
func (a *attempt) message() ([]byte, error) {
	switch begin := a.stream.Contiguous(); {
	case len(begin) > 0 && begin[0] != 1:
		return nil, errNotHello
	case a.stream.ClientHelloLen() > wire.MaxClientHello:
		return nil, hello.ErrTooLong
	}
	return a.stream.ClientHello(), nil
}

// attempt begins an attempt with an Initial, a 0-RTT packet, or a packet of an unknown version.
func (sh *shard) attempt(at endpoints, p *peer, r *run, a *attempt, h *wire.Header) {
	cheap := h.Type == wire.ZeroRTT && !a.opaque
	if !sh.hasRoom(p, cheap) {
		sh.drop(r, DropFull)
		return
	}
	if f := sh.admit(at, a, cheap); f != nil {
		f.source = idOf(h.SrcID)
		sh.collect(f, r)
	} else {
		sh.drop(r, DropFull)
	}
}

// hasRoom reports whether an address may have another flow, and makes room for it unless it is
// cheap. p may be nil.
func (sh *shard) hasRoom(p *peer, cheap bool) bool {
	return p == nil || len(p.flows) < maxPeerFlows || !cheap && sh.makeRoom(p)
}

// mayBegin reports whether a packet can begin an attempt, or why not.
func (sh *shard) mayBegin(a *attempt, r *run, h *wire.Header) (Drop, bool) {
	s := sh.relay.server
	switch {
	case h.Type != wire.Initial && h.Type != wire.ZeroRTT && !a.opaque:
		return DropUnknownID, false
	case s.draining.Err() != nil:
		return DropClosing, false
	case a.opaque && (s.conf.Router == nil && s.table.Load().pick(keyAny, nil) == nil):
		return DropVersion, false
	case !a.opaque && len(h.DstID) < minFirstID:
		return DropUnknownID, false
	case h.Type != wire.ZeroRTT && len(r.data) < minInitial:
		return DropShortInitial, false
	case a.opaque:
		return 0, true
	}
	keys, err := a.dialect.InitialKeys(h.DstID, wire.Client)
	if err != nil {
		return DropUndecryptable, false
	}
	a.keys = keys
	if h.Type == wire.Initial {
		if _, err := keys.Open(nil, h); err != nil {
			return DropUndecryptable, false
		}
	}
	return 0, true
}

// makeRoom ends the oldest flow of an address that is not confirmed.
func (sh *shard) makeRoom(p *peer) bool {
	for _, f := range p.flows {
		if !f.confirmed.Load() {
			sh.relay.end(f, WaitingFull)
			sh.prune(p)
			return true
		}
	}
	return false
}

// admit makes the flow of an attempt, or returns nil if the limits or the quota forbid it.
func (sh *shard) admit(at endpoints, a *attempt, cheap bool) *flow {
	q := sh.relay
	q.counters.accepted.Add(1)
	c := &quicConn{began: monotime.Time(sh.now)}
	c.idLen.Store(-1)
	c.hello.Client = at.client
	f := &flow{shard: sh, endpoints: at, conn: c, attempt: a, cheap: cheap, began: c.began, first: none, final: none}
	if q.conf.Quota != nil {
		slot, err := q.conf.Quota.Admit(at.client, false)
		if err != nil {
			q.refuse(f, QuotaRefused, err)
			return nil
		}
		c.slot = slot
	}
	if why, ok := q.add(f, a.id); !ok {
		if c.slot != nil {
			c.slot.Release()
		}
		q.refuse(f, why, nil)
		return nil
	}
	if c.slot != nil {
		c.slot.OnEnd(func() { q.endConn(c) })
	}
	sh.join(f)
	return f
}

// collect takes a datagram of an attempt.
func (sh *shard) collect(f *flow, r *run) {
	a := f.attempt
	if a.opaque || a.decided {
		if f.usable() {
			sh.pass(f, r, noEvidence)
			return
		}
		sh.hold(f, r)
		if a.opaque && !a.decided {
			a.decided = true
			sh.begin(f)
		}
		return
	}
	err := a.read(r.data)
	if errors.Is(err, errUndecryptable) {
		sh.drop(r, DropUndecryptable)
		return
	}
	sh.hold(f, r)
	var msg []byte
	if err == nil {
		msg, err = a.message()
	}
	switch {
	case errors.Is(err, hello.ErrTooLong):
		sh.relay.fail(f, HelloTooLong, err)
	case err != nil:
		sh.relay.fail(f, HelloInvalid, err)
	case msg != nil:
		sh.heard(f, msg)
	}
}

// heard takes the ClientHello of an attempt.
func (sh *shard) heard(f *flow, msg []byte) {
	a := f.attempt
	var h Hello
	if err := h.parse(msg); err != nil {
		sh.relay.fail(f, HelloInvalid, err)
		return
	}
	f.keys = a.keys
	a.decided, a.stream = true, wire.CryptoStream{}
	sh.relay.table.mu.Lock()
	h.Client = f.client
	f.conn.hello = h
	sh.relay.table.mu.Unlock()
	sh.begin(f)
}

// hold keeps a datagram until there is an upstream.
func (sh *shard) hold(f *flow, r *run) {
	if r.message.HopLimit == 1 {
		sh.drop(r, DropHopLimit)
		return
	}
	if f.attempt == nil || f.ended.Load() || !sh.keep(f, r) {
		sh.drop(r, DropHeld)
		return
	}
	f.active.Store(sh.now)
	f.credit.Add(factor * int64(len(r.data)))
}

// keep adds a run to what is held. It reports false if there is no room.
func (sh *shard) keep(f *flow, r *run) bool {
	a := f.attempt
	for i := range a.held {
		if bytes.Equal(a.held[i].Data, r.data) {
			return true
		}
	}
	if len(a.held) >= maxHeld || a.size+len(r.data) > maxHeldBytes {
		return false
	}
	m := r.toUpstream()
	m.Data = bytes.Clone(r.data)
	a.held = append(a.held, m)
	a.size += len(m.Data)
	return true
}
