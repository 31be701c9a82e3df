package relay

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// handler serves the control protocol. See package internal/control for the
// messages.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions/{session}/legs", s.serve(s.serveRegister))
	mux.HandleFunc("DELETE /v1/sessions/{session}/legs/{role}", s.serve(s.serveEnd))
	mux.HandleFunc("PUT /v1/offers/{name}", s.serve(s.servePutOffer))
	mux.HandleFunc("GET /v1/offers/{name}", s.serve(s.serveTakeOffer))
	mux.HandleFunc("DELETE /v1/offers/{name}/{number}", s.serve(s.serveAcknowledge))
	mux.HandleFunc("GET /v1/events", s.serve(s.serveEvents))
	return mux
}

// serve answers a refusal with what it is, and counts it.
func (s *Server) serve(h func(http.ResponseWriter, *http.Request, *client) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := clientOf(r)
		r.Body = http.MaxBytesReader(w, r.Body, int64(max(control.MaxBody, s.conf.MaxOfferSize))+1)
		err := h(w, r, c)
		if err == nil {
			return
		}
		s.refused(c, r.Method+" "+r.URL.Path, err)
		status, problem := problemOf(err)
		reply(w, status, problem)
	}
}

// serveRegister gives, refreshes or moves a leg.
func (s *Server) serveRegister(w http.ResponseWriter, r *http.Request, c *client) error {
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
	registered, err := s.register(r.Context(), c, id, &req, bearer(r))
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, registered)
	return nil
}

// serveEnd ends a leg.
func (s *Server) serveEnd(w http.ResponseWriter, r *http.Request, _ *client) error {
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
	if err := s.end(id, role, key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveEvents tells the client what happens to its legs, as long as it stays.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, c *client) error {
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
		case <-s.closing.Done():
			return nil
		case e := <-c.events:
			if lines.Encode(e) != nil || flush() != nil {
				return nil // the client is gone
			}
		}
	}
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), control.Bearer)
	return token
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error means that the client is gone: there is nobody to tell.
	_ = json.NewEncoder(w).Encode(body)
}
