package sni

import (
	"errors"
	"io"
	"time"
)

// unrecognizedName is a fatal TLS alert (RFC 8446 §6, RFC 6066 §3) in a record.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// internalError is the alert for clients whose upstream fails (RFC 8446 §6.2).
var internalError = []byte{21, 3, 3, 0, 2, 2, 80}

// alertTime is the time in which a client has to read an alert.
const alertTime = time.Second

// refuse ends a connection that gets no upstream. A client that speaks TLS gets an alert
// if there is no route or no upstream for it. Others are reset.
func (c *conn) refuse(err error) {
	failure := &refusal{HelloReset, err}
	errors.As(err, &failure)
	if why := c.why(); why != nil {
		if !errors.As(why, &failure) {
			failure = &refusal{ServerClosed, why}
		}
	}
	c.server.counters.failed[failure.reason].Add(1)
	c.mu.Lock()
	hello, client := c.hello, c.client
	c.mu.Unlock()
	c.server.log.Debug("refused", "client", hello.Client, "name", hello.ServerName, "reason", failure.reason.String(), "err", failure.err)
	if record := alertFor(failure.reason); record != nil && hello.TLS && client != nil { // nil: it has been in a loop
		c.alert(record)
	}
	c.abort(err)
}

// alertFor returns the alert for a client that speaks TLS, or nil.
func alertFor(reason Failure) []byte {
	switch reason {
	case NoRoute, RouterRefused:
		return unrecognizedName
	case UpstreamFailed, RouteFull:
		return internalError
	}
	return nil
}

// alert sends an alert, and waits until the client has closed the connection: a reset
// would overtake the alert.
func (c *conn) alert(record []byte) {
	if err := c.client.SetDeadline(time.Now().Add(alertTime)); err != nil {
		return
	}
	if _, err := c.client.Write(record); err != nil {
		return
	}
	if err := c.client.CloseWrite(); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.client, 64<<10) // ends at the deadline, or with the client
}
