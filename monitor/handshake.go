package monitor

import "github.com/quicway/quicway/internal/wire"

// timeHandshake notes when the handshake's packets pass (RFC 9312 §3.8.1).
func (t *Tracker) timeHandshake(a *arrival, p *path, kind wire.Type) {
	r := p.record
	switch from := p.sender(a); {
	case from == wire.Client && r.asked == 0 && (kind == wire.Initial || kind == wire.ZeroRTT):
		if p.ways[wire.Server].packets == 0 { // or else the first was not captured
			r.asked = a.now
		}
	case from == wire.Server && r.answered == 0 && r.asked != 0:
		r.answered = a.now
		r.negotiated = false
	case from == wire.Client && r.answered != 0 && r.concluded == 0:
		t.conclude(a, p)
	}
}

// conclude notes the client's first packet after the server's answer.
func (t *Tracker) conclude(a *arrival, p *path) {
	r := p.record
	r.concluded = a.now
	t.emit(EventRTT, r, func(e *Event) { e.RTT = Milliseconds(r.concluded - r.asked) })
}
