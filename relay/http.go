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
	env         *env
	registrar   *registrar
	offers      *offerAPI
	subscribers *subscribers
	closing     context.Context // done when the server closes
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions/{session}/legs", a.serve(a.serveRegister))
	mux.HandleFunc("DELETE /v1/sessions/{session}/legs/{role}", a.serve(a.serveEnd))
	mux.HandleFunc("PUT /v1/offers/{name}", a.serve(a.offers.servePut))
	mux.HandleFunc("GET /v1/offers/{name}", a.serve(a.offers.serveTake))
	mux.HandleFunc("DELETE /v1/offers/{name}/{number}", a.serve(a.offers.serveAcknowledge))
	mux.HandleFunc("GET /v1/events", a.serve(a.serveEvents))
	mux.HandleFunc("GET /v1/relays", a.serve(a.serveRelays))
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
		a.refused(r, c, err)
		status, problem := problemOf(err)
		reply(w, status, problem)
	}
}

// refused counts and logs a request, or a part of one, that is refused.
func (a *api) refused(r *http.Request, c *client, err error) {
	a.env.counters.refused.Add(1)
	a.env.log.Warn("request refused", "what", r.Method+" "+r.URL.Path, "addr", c.remote(), "err", err)
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
	if req.Offer != nil && (a.env.conf.Advertise == "" || req.Offer.Relay == a.env.conf.Advertise) {
		err := a.offers.leave(r.Context(), c, bearer(r), id, req.Offer)
		if registered.Offered = err == nil; err != nil {
			a.refused(r, c, err)
			_, registered.Problem = problemOf(err)
		}
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

// serveRelays tells the client which relays there are. Like the events, this needs no token:
// a client that only waits for offers also has to know where else it can wait.
func (a *api) serveRelays(w http.ResponseWriter, _ *http.Request, _ *client) error {
	reply(w, http.StatusOK, a.env.members.all())
	return nil
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
