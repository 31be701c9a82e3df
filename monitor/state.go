package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// State is how far a connection has come.
type State uint8

// The states.
const (
	// StateHandshake: the handshake is not complete.
	StateHandshake State = iota
	// StateOpen: the client has answered the server's answer, or sends packets that it can send
	// only then. If the beginning was not captured it is enough that both sides have sent something.
	StateOpen
	// StateSilent: there were no packets for 30 seconds, by the packets' clock. The connection may
	// be over: after the handshake the packets that end one are encrypted, and look like any other.
	StateSilent
	// StateEnded: the connection has ended, and Connection.Ended says how.
	StateEnded
)

var stateNames = [...]string{"handshake", "open", "silent", "ended"}

// String returns the name in JSON.
func (s State) String() string { return name(stateNames[:], s) }

// MarshalText implements [encoding.TextMarshaler].
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Cause is why a connection has ended.
type Cause uint8

// The causes.
const (
	// CauseClose: one side has closed the connection during the handshake, with a CONNECTION_CLOSE
	// frame in an Initial (RFC 9000 §10.2.3). So a server refuses a connection.
	CauseClose Cause = iota
	// CauseIdle: there were no packets for [Config.Idle].
	CauseIdle
)

var causeNames = [...]string{"close", "idle"}

// String returns the name in JSON.
func (c Cause) String() string { return name(causeNames[:], c) }

// MarshalText implements [encoding.TextMarshaler].
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Ending is how a connection has ended. A connection that is closed after its handshake, or ends by a
// stateless reset, does not show that. It is silent, and after [Config.Idle] it ends by CauseIdle.
type Ending struct {
	// Time is the time of the packet that has closed the connection, or that of the last packet if
	// the cause is CauseIdle.
	Time  time.Time `json:"time"`
	Cause Cause     `json:"cause"`
	// By is the side that has closed the connection, "client" or "server". It and the following
	// fields are zero unless the cause is CauseClose.
	By string `json:"by,omitempty"`
	// Code is the transport error code (RFC 9000 §20.1). Error is the code in hex, and its name if
	// it has one, as "0x2 CONNECTION_REFUSED".
	Code  uint64 `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	// Application reports whether the application has closed the connection. Its own code is not
	// shown: Code is that of APPLICATION_ERROR.
	Application bool `json:"application,omitempty"`
	// Phrase is the reason phrase, at most 64 bytes of it. The sender may write anything in it.
	Phrase string `json:"phrase,omitempty"`
}

// String describes the ending, as "closed in the handshake by the server: 0x2 CONNECTION_REFUSED".
func (e Ending) String() string {
	if e.Cause != CauseClose {
		return e.Cause.String()
	}
	return fmt.Sprintf("closed in the handshake by the %s: %s", e.By, e.Error)
}

const (
	// silentAfter is the silence after which a connection is silent. Common implementations end
	// connections after 30 seconds or less.
	silentAfter = int64(30 * time.Second)
	// maxClosing is how many datagrams a side may send after it has closed the connection: it answers
	// packets that are still on their way (RFC 9000 §10.2.1). If it sends more the frame was forged.
	maxClosing = 8
	// maxPhrase bounds the part of a reason phrase that is kept.
	maxPhrase = 64
)

// ending is an Ending with what was sent before it.
type ending struct {
	Ending
	by   wire.Side
	sent uint64 // datagrams of the side that has closed the connection, when it last said so
}

// close notes a CONNECTION_CLOSE frame in an Initial. The keys of Initials are public. So the frame does
// not count once both sides use other keys.
func (c *connection) close(now int64, by wire.Side, frame *wire.Close) {
	if c.active.sent[wire.Client].short && c.active.sent[wire.Server].short {
		return
	}
	if e := c.ended; e != nil {
		if by == e.by { // it says so again
			e.sent = c.sentBy(by)
		}
		return
	}
	e := &ending{Ending: Ending{Time: timeOf(now), Code: frame.Code, Application: frame.Application}, by: by, sent: c.sentBy(by)}
	e.Error = strings.TrimSuffix(fmt.Sprintf("%#x %s", frame.Code, frame.Name()), " ")
	e.Phrase = strings.ToValidUTF8(string(frame.Reason[:min(len(frame.Reason), maxPhrase)]), "")
	if e.By = "client"; by == wire.Server {
		e.By = "server"
	}
	c.ended = e
}

// sentBy returns how many datagrams a side has sent.
func (c *connection) sentBy(side wire.Side) uint64 {
	n := c.gone().traffic[side].Packets
	for _, p := range c.paths {
		n += p.sent[side].packets
	}
	return n
}

// state returns the state at a time, and how the connection has ended or nil.
func (c *connection) state(now int64) (State, *Ending) {
	if e := c.ended; e != nil && c.sentBy(e.by) <= e.sent+maxClosing {
		out := e.Ending
		return StateEnded, &out
	}
	switch {
	case now-c.last >= silentAfter:
		return StateSilent, nil
	case c.open || c.silent(wire.Client):
		return StateOpen, nil
	}
	return StateHandshake, nil
}

// hasOpened reports whether a packet on any path has shown that the connection is open. So it does not
// matter when a path came into use, which the kernel's counters do not tell.
func (c *connection) hasOpened() bool {
	return c.confirmAt != 0 || slices.ContainsFunc(c.paths, func(p *path) bool {
		return c.initialAt == 0 && p.bothWays() || c.confidence != GoogleQUIC && p.sent[wire.Client].short
	})
}

// recount has the census count a connection as what it is after a packet. A packet with a short header
// changes no group but the state, except in Google's versions, whose headers all look short.
func (x *index) recount(c *connection, long bool) {
	c.open = c.open || c.hasOpened()
	if long || !c.open || c.counted.state != StateOpen || c.confidence == GoogleQUIC {
		x.census.update(c)
	}
}

// endIdle notes in a copy of a connection that it has been idle for too long, unless it has ended
// before.
func (c *Connection) endIdle() {
	if c.State != StateEnded {
		c.State, c.Ended = StateEnded, &Ending{Time: c.Last, Cause: CauseIdle}
	}
}
