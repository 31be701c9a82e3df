package relay

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// api serves the requests of the control protocol. See package internal/control for the
// messages.
type api struct {
	env       *env
	registrar *registrar
	offers    *offerAPI
	closing   context.Context // done when the server closes
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions/{session}/legs", a.serve(a.serveRegister))
	mux.HandleFunc("DELETE /v1/sessions/{session}/legs/{role}", a.serve(a.serveEnd))
	mux.HandleFunc("PUT /v1/offers/{name}", a.serve(a.offers.servePut))
	mux.HandleFunc("GET /v1/offers/{name}", a.serve(a.offers.serveTake))
	mux.HandleFunc("DELETE /v1/offers/{name}/{number}", a.serve(a.offers.serveAcknowledge))
	mux.HandleFunc("GET /v1/events", a.serve(a.serveEvents))
	return mux
}

// serve makes a handler that answers the error of h, counts it and logs it.
func (a *api) serve(h func(http.ResponseWriter, *http.Request, *client) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := clientOf(r)
		r.Body = http.MaxBytesReader(w, r.Body, int64(max(control.MaxBody, a.env.conf.MaxOfferSize))+1)
		err := h(w, r, c)
		if err == nil {
			return
		}
		a.env.counters.refused.Add(1)
		a.env.log.Warn("request refused", "what", r.Method+" "+r.URL.Path, "addr", c.conn.RemoteAddr(), "err", err)
		status, problem := problemOf(err)
		reply(w, status, problem)
	}
}

// serveRegister gives, refreshes or moves a leg.
func (a *api) serveRegister(w http.ResponseWriter, r *http.Request, c *client) error {
	var id control.SessionID
	if err := id.UnmarshalText([]byte(r.PathValue("session"))); err != nil {
		return err
	}
	var req control.Register
	if err := control.Decode(r.Body, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	registered, err := a.registrar.register(r.Context(), c, id, &req, bearer(r))
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, registered)
	return nil
}

// serveEnd ends a leg.
func (a *api) serveEnd(w http.ResponseWriter, r *http.Request, _ *client) error {
	var id control.SessionID
	if err := id.UnmarshalText([]byte(r.PathValue("session"))); err != nil {
		return err
	}
	var role control.Role
	if err := role.UnmarshalText([]byte(r.PathValue("role"))); err != nil {
		return err
	}
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), control.Leg)
	if !ok {
		return errToken
	}
	var key cid.Key
	if err := key.UnmarshalText([]byte(text)); err != nil {
		return errToken
	}
	if err := a.registrar.endLeg(id, role, key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveEvents sends the client the events of its legs until the request ends.
func (a *api) serveEvents(w http.ResponseWriter, r *http.Request, c *client) error {
	if !c.subscribed.CompareAndSwap(false, true) {
		return errSubscribed
	}
	defer c.subscribed.Store(false)
	c.observe()
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w).Flush
	lines := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-a.closing.Done():
			return nil
		case e := <-c.events:
			if lines.Encode(e) != nil || flush() != nil {
				return nil // the connection has ended
			}
		}
	}
}

// bearer returns the token of a request, or "".
func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), control.Bearer)
	return token
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only if the connection has ended
}
