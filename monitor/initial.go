package monitor

import (
	"fmt"
	"slices"

	"github.com/quicway/quicway/internal/hello"
	"github.com/quicway/quicway/internal/wire"
)

// initial opens an Initial and reads the handshake in it.
func (t *Tracker) initial(a *arrival, p *path, h *wire.Header) bool {
	r := p.record
	if r.attempt == nil {
		return false
	}
	from := p.sender(a)
	d := r.dialectOf(h.Packet)
	opened, ok := t.openInitial(a, p, h, from, d)
	if !ok {
		return false
	}
	t.attempts.get(r.number, a.now)
	from = p.sender(a) // openInitial may have found the sides to be the other way
	stream := &r.attempt.streams[from]
	for f, err := range d.CryptoFrames(opened.Payload) {
		if err != nil {
			break // a frame of another version; what came before it counts
		}
		if err := stream.Add(f.Offset, f.Data); err != nil {
			t.counters.HelloErrors++
			break
		}
	}
	t.readHello(r, from)
	return true
}

// openInitial tries the keys of the connection, and of a client those of the
// packet's own ID: it may be the first that was captured, or follow a Retry.
func (t *Tracker) openInitial(a *arrival, p *path, h *wire.Header, from wire.Side, d wire.Dialect) (wire.Opened, bool) {
	r := p.record
	if keys := r.attempt.initialKeys(from, d); keys != nil {
		if opened, err := keys.Open(t.plain[:0], h); err == nil {
			t.proven(a, p)
			return opened, true
		}
	}
	fresh := r.attempt.keyID.len == 0
	// A client may follow any of several Retries, but not an ID of its own.
	if !fresh && !(from == wire.Client && r.isOrigID(h.DstID)) {
		return wire.Opened{}, false
	}
	keys, err := d.InitialKeys(h.DstID, wire.Client)
	if err != nil {
		return wire.Opened{}, false
	}
	opened, err := keys.Open(t.plain[:0], h)
	if err != nil {
		return wire.Opened{}, false
	}
	if from == wire.Server {
		t.swap(r)
	}
	r.attempt.keyID = idOf(h.DstID)
	r.attempt.keys = [2]sideKeys{wire.Client: {d, keys}}
	t.learnOrigID(r, r.attempt.keyID, a.now)
	t.proven(a, p)
	return opened, true
}

// initialKeys returns those that a side's Initials are protected with, or nil.
func (at *attempt) initialKeys(from wire.Side, d wire.Dialect) *wire.InitialKeys {
	if at.keyID.len == 0 {
		return nil
	}
	have := &at.keys[from]
	if have.keys == nil || have.dialect != d {
		keys, err := d.InitialKeys(at.keyID.bytes[:at.keyID.len], from)
		if err != nil {
			return nil
		}
		*have = sideKeys{d, keys}
	}
	return have.keys
}

func (t *Tracker) proven(a *arrival, p *path) {
	if p.record.raise(Proven, "an Initial opens") {
		t.learnServer(p, a.now)
	}
}

// swap exchanges the sides of a record whose client was taken for the server.
func (t *Tracker) swap(r *record) {
	r.ends[0], r.ends[1] = r.ends[1], r.ends[0]
	r.initials[0], r.initials[1] = r.initials[1], r.initials[0]
	r.asked, r.answered, r.concluded = 0, 0, 0
	for _, p := range r.paths {
		for _, key := range p.talks() {
			t.forgetTalker(key, r)
		}
		p.client, p.server = p.server, p.client
		p.clientIsA = !p.clientIsA
		p.ways[0], p.ways[1] = p.ways[1], p.ways[0]
	}
	if r.direction != DirectionUnknown {
		r.direction = Inbound + Outbound - r.direction
	}
	for side := range r.ends {
		for _, id := range r.ends[side].ids {
			t.disown(id, r)
			t.own(r, wire.Side(side), id, r.last)
		}
	}
}

// readHello reads a hello that has become complete.
func (t *Tracker) readHello(r *record, from wire.Side) {
	at := r.attempt
	if at.read[from] {
		return
	}
	if from == wire.Client {
		t.readClient(r)
	} else {
		t.readServer(r)
	}
	if at.read[wire.Client] && at.read[wire.Server] {
		at.streams = [2]wire.CryptoStream{}
	}
}

// maxALPN bounds the protocols that are kept of a client, which may list
// thousands of empty ones.
const maxALPN = 16

func (t *Tracker) readClient(r *record) {
	msg := r.attempt.streams[wire.Client].ClientHello()
	if msg == nil {
		return
	}
	r.attempt.read[wire.Client] = true
	c, err := hello.ParseClient(msg)
	if err != nil {
		t.counters.HelloErrors++
		return
	}
	info := TLS{
		ServerName: c.ServerName, ALPN: slices.Clone(c.ALPN[:min(len(c.ALPN), maxALPN)]), JA4: c.JA4(),
		ECH: c.ECH, PostQuantum: c.PostQuantum(),
	}
	for _, group := range c.Groups {
		if name := hello.GroupName(group); hello.PostQuantum(group) && !slices.Contains(info.PostQuantumGroups, name) {
			info.PostQuantumGroups = append(info.PostQuantumGroups, name)
		}
	}
	if r.tls != nil {
		info.Cipher, info.Group, info.TLSVersion = r.tls.Cipher, r.tls.Group, r.tls.TLSVersion
	}
	r.tls = &info
	t.emit(EventIdentified, r, nil)
}

func (t *Tracker) readServer(r *record) {
	msg := r.attempt.streams[wire.Server].ServerHello()
	if msg == nil {
		return
	}
	r.attempt.read[wire.Server] = true
	s, err := hello.ParseServer(msg)
	if err != nil {
		t.counters.HelloErrors++
		return
	}
	info := TLS{}
	if r.tls != nil {
		info = *r.tls
	}
	info.Cipher = hello.CipherName(s.Cipher)
	if s.Group != 0 {
		info.Group = hello.GroupName(s.Group)
	}
	if info.TLSVersion = fmt.Sprintf("%#04x", s.Version); s.Version == 0x0304 {
		info.TLSVersion = "1.3"
	}
	r.tls = &info
	t.emit(EventIdentified, r, nil)
}

// retry takes a Retry packet: the client begins anew, with other keys.
func (t *Tracker) retry(a *arrival, p *path, h *wire.Header) {
	r := p.record
	if p.sender(a) != wire.Server || r.answered != 0 {
		t.counters.Bogus++
		return
	}
	verified := false
	for i := range r.origIDs {
		id := &r.origIDs[i]
		verified = verified || r.dialectOf(h.Packet).VerifyRetry(h, id.bytes[:id.len])
	}
	if !verified {
		if len(r.origIDs) > 0 {
			t.counters.Bogus++
			return
		}
		r.retries++ // what it answers was not captured
		return
	}
	r.retries++
	if r.raise(Proven, "a Retry's tag verifies") {
		t.learnServer(p, a.now)
	}
	if r.attempt == nil || r.isOrigID(h.SrcID) {
		return
	}
	id := idOf(h.SrcID)
	t.learnOrigID(r, id, a.now)
	r.attempt.keyID = id
	r.attempt.keys = [2]sideKeys{}
	r.attempt.streams = [2]wire.CryptoStream{}
	r.attempt.read = [2]bool{}
}
