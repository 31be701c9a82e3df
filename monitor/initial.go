package monitor

import "github.com/quicway/quicway/internal/wire"

// initialReader opens Initials and reads the hellos in them.
type initialReader struct {
	index    *index
	counters *counters
	events   *events
	plain    []byte // scratch space for the payload of an Initial
}

// keysOf returns the client's keys that follow from an Initial's own ID if they
// open it, or nil.
func (r *initialReader) keysOf(h *wire.Header, d wire.Dialect) *wire.InitialKeys {
	if !h.Sampled() { // such as some messages of DNS
		return nil
	}
	keys, err := d.InitialKeys(h.DstID, wire.Client)
	if err != nil {
		return nil
	}
	if !r.decrypts(keys, h) {
		return nil
	}
	return keys
}

// decrypts reports whether keys, which may be nil, decrypt an Initial.
func (r *initialReader) decrypts(keys *wire.InitialKeys, h *wire.Header) bool {
	if keys == nil {
		return false
	}
	_, err := keys.Open(r.plain[:0], h)
	return err == nil
}

// read opens an Initial of a connection and reads the handshake messages in it.
// It reports whether the Initial has opened, and whether its sender may have got a packet before.
func (r *initialReader) read(a *arrival, p *path, h *wire.Header) (ok, answers bool) {
	c := p.conn
	if c.handshake == nil || !h.Sampled() {
		return false, true
	}
	d := c.dialectOf(h.Packet)
	opened, ok := r.open(a, p, h, d)
	if !ok {
		return false, true
	}
	r.index.handshakes.get(c.number, a.now)
	from := p.sender(a) // after open, which may have swapped the sides
	stream := &c.handshake.streams[from]
	for f, err := range d.CryptoFrames(opened.Payload) {
		if err != nil {
			break // a frame of another version; what came before it counts
		}
		if err := stream.Add(f.Offset, f.Data); err != nil {
			r.counters.HelloErrors++
			break
		}
	}
	r.readHello(c, from)
	if frame, ok := d.FindClose(opened.Payload); ok {
		c.history.add(from, sawClose)
		c.close(a.now, from, &frame)
	}
	return true, c.confirmAt != 0 || !c.isOrigID(h.DstID) || d.MayAcknowledge(opened.Payload)
}

// open tries the keys of the connection, and for a client those of the packet's
// own ID: it may be the first Initial that was captured, or follow a Retry.
func (r *initialReader) open(a *arrival, p *path, h *wire.Header, d wire.Dialect) (wire.Opened, bool) {
	c, from := p.conn, p.sender(a)
	if keys := c.handshake.initialKeys(from, d); keys != nil {
		if opened, err := keys.Open(r.plain[:0], h); err == nil {
			r.index.prove(p, "an Initial was decrypted", a.now)
			return opened, true
		}
	}
	first := c.handshake.keyID.len == 0
	if !first && from == wire.Server {
		return r.openEarlier(a, p, h, d)
	}
	// A client may follow any of several Retries, but may not choose another ID.
	if !first && !c.isOrigID(h.DstID) {
		return wire.Opened{}, false
	}
	keys, err := d.InitialKeys(h.DstID, wire.Client)
	if err != nil {
		return wire.Opened{}, false
	}
	opened, err := keys.Open(r.plain[:0], h)
	if err != nil {
		return wire.Opened{}, false
	}
	if from == wire.Server {
		r.index.swapSides(c)
	}
	c.handshake.keyID = idOf(h.DstID)
	c.handshake.keys = [2]sideKeys{wire.Client: {d, keys}}
	r.index.learnOrigID(c, c.handshake.keyID, a.now)
	r.index.prove(p, "an Initial was decrypted", a.now)
	return opened, true
}

// openEarlier tries the keys of the client's other attempts for an Initial of the server. An Initial of an
// earlier attempt may have come after those of the later one.
func (r *initialReader) openEarlier(a *arrival, p *path, h *wire.Header, d wire.Dialect) (wire.Opened, bool) {
	c := p.conn
	for i := range c.origIDs {
		id := c.origIDs[i]
		if id == c.handshake.keyID {
			continue
		}
		keys, err := d.InitialKeys(id.bytes[:id.len], wire.Server)
		if err != nil {
			return wire.Opened{}, false
		}
		if opened, err := keys.Open(r.plain[:0], h); err == nil {
			c.handshake.keyID, c.handshake.keys = id, [2]sideKeys{wire.Server: {d, keys}}
			r.index.prove(p, "an Initial was decrypted", a.now)
			return opened, true
		}
	}
	return wire.Opened{}, false
}

// readHello reads the hello of a side once it is complete.
func (r *initialReader) readHello(c *connection, from wire.Side) {
	if c.handshake.read[from] {
		return
	}
	var read bool
	var err error
	if from == wire.Client {
		read, err = c.readClient()
	} else {
		read, err = c.readServer()
	}
	switch {
	case err != nil:
		r.counters.HelloErrors++
	case read:
		c.history.add(from, sawHello)
		r.events.emit(EventIdentified, c, func(e *Event) { e.ServerHello = from == wire.Server })
	}
	if c.handshake.done() {
		c.handshake.streams = [2]wire.CryptoStream{}
	}
}

// retry takes a Retry: the client begins again, with other keys.
func (r *initialReader) retry(a *arrival, p *path, h *wire.Header) {
	c := p.conn
	if p.sender(a) != wire.Server || c.answerAt != 0 {
		r.counters.Bogus++
		return
	}
	verified := false
	for i := range c.origIDs {
		id := &c.origIDs[i]
		verified = verified || c.dialectOf(h.Packet).VerifyRetry(h, id.bytes[:id.len])
	}
	switch {
	case verified:
		r.index.prove(p, "a Retry's tag verifies", a.now)
	case len(c.origIDs) > 0:
		r.counters.Bogus++
		return
	} // else the Initial that it answers was not captured
	c.retries++
	p.sent[wire.Server].id = idOf(h.DstID)
	if c.handshake == nil || c.isOrigID(h.SrcID) {
		return
	}
	id := idOf(h.SrcID)
	r.index.learnOrigID(c, id, a.now)
	*c.handshake = handshake{keyID: id}
}
