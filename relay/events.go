package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/control"
)

// eventQueue is how many events are queued for a client that does not read them.
// Further events are dropped: a client finds out the same without them, but later.
const eventQueue = 64

// events are the events for one client. They are written to the stream of the client's
// request for them.
type events struct {
	writing errand

	mu     sync.Mutex // guards the following
	asked  bool       // the client has an open request for events
	stream *http3.Stream
	queue  []control.Event // those that are not written yet
}

// add queues an event. It never blocks.
func (e *events) add(event control.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) < eventQueue {
		e.queue = append(e.queue, event)
	}
	if e.stream != nil {
		e.writing.want()
	}
}

// addLast queues the event that the server drains, which must not be lost. There is room for
// one more event than others may take.
func (e *events) addLast(event control.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) <= eventQueue {
		e.queue = append(e.queue, event)
	}
	if e.stream != nil {
		e.writing.want()
	}
}

// ask notes that the client asks for its events. It returns false if it has done so already.
func (e *events) ask() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked {
		return false
	}
	e.asked = true
	return true
}

// begin writes events to a stream from now on.
func (e *events) begin(stream *http3.Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stream = stream
	e.writing.want()
}

// end notes that the request has ended.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked, e.stream = false, nil
}

// write writes the events that are queued. Those that cannot be written are lost, because
// the stream has ended.
func (e *events) write() {
	e.mu.Lock()
	stream, queued := e.stream, slices.Clone(e.queue)
	e.mu.Unlock()
	if stream == nil || len(queued) == 0 {
		return
	}
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for i := range queued {
		_ = out.Encode(&queued[i]) // cannot fail
	}
	_, _ = stream.Write(lines.Bytes())
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queue = slices.Delete(e.queue, 0, len(queued)); len(e.queue) == 0 {
		e.queue = nil
	}
}

// serveEvents sends the client the events of its legs until the request ends. The handler
// returns before: nothing but memory is kept for a client that waits.
func (a *api) serveEvents(w http.ResponseWriter, _ *http.Request, c *client) error {
	if !c.events.ask() {
		return errSubscribed
	}
	stream, err := takeStream(w, control.EventsType)
	if err != nil {
		c.events.end()
		return nil // the connection has ended
	}
	c.observe()
	c.events.begin(stream)
	a.subscribers.add(c)
	context.AfterFunc(stream.Context(), func() {
		a.subscribers.remove(c)
		c.events.end()
		endStream(stream)
	})
	return nil
}

// takeStream begins an answer, and returns its stream, which stays open when the handler
// returns.
func takeStream(w http.ResponseWriter, contentType string) (*http3.Stream, error) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	return w.(http3.HTTPStreamer).HTTPStream()
}

// endStream ends both directions of a stream.
func endStream(stream *http3.Stream) {
	stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	_ = stream.Close()
}
