package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// handler serves the control protocol. See package internal/control for the
// messages.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions/{session}/legs", s.serve(s.serveRegister))
	mux.HandleFunc("DELETE /v1/sessions/{session}/legs/{role}", s.serve(s.serveEnd))
	mux.HandleFunc("PUT /v1/offers/{name}", s.serve(s.servePutOffer))
	mux.HandleFunc("GET /v1/offers/{name}", s.serve(s.serveTakeOffer))
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

// servePutOffer leaves an offer for somebody, for whoever may open sessions.
func (s *Server) servePutOffer(w http.ResponseWriter, r *http.Request, c *client) error {
	name, err := offerName(r)
	if err != nil {
		return err
	}
	if _, err := s.authorize(r.Context(), c, bearer(r)); err != nil {
		return errToken
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, int64(s.conf.MaxOfferSize)+1))
	if err != nil {
		return fmt.Errorf("%w: read offer: %w", control.ErrBody, err)
	}
	if len(text) == 0 {
		return fmt.Errorf("%w: the offer is empty", control.ErrBody)
	}
	if err := s.mailbox.put(name, text); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveTakeOffer hands out an offer, waiting for one as long as asked to.
func (s *Server) serveTakeOffer(w http.ResponseWriter, r *http.Request, c *client) error {
	name, err := offerName(r)
	if err != nil {
		return err
	}
	sole, err := s.mayTake(r, c, name)
	if err != nil {
		return err
	}
	// Not FormValue, which reads the body too, whatever its size.
	asked := r.URL.Query().Get("wait")
	seconds, err := strconv.ParseUint(asked, 10, 16)
	if err != nil && asked != "" {
		return fmt.Errorf("%w: wait is not a number of seconds", control.ErrBody)
	}
	wait := min(time.Duration(seconds)*time.Second, control.MaxWait)
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	var taker *client
	if sole {
		taker = c
	}
	text, err := s.mailbox.take(ctx, name, taker)
	if err != nil {
		return err
	}
	if text == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	_, _ = w.Write(text)
	return nil
}

// mayTake says who gets what waits under a name. If the name is the ID of a
// key, only who proves with its certificate to have that key, who is then the
// sole taker; else whoever may open sessions.
func (s *Server) mayTake(r *http.Request, c *client, name string) (sole bool, err error) {
	if want, err := pki.ParseKeyID(name); err == nil {
		have, err := pki.PeerKeyID(c.conn.ConnectionState().TLS)
		if err != nil || have != want {
			return false, errNotAddressee
		}
		return true, nil
	}
	if _, err := s.authorize(r.Context(), c, bearer(r)); err != nil {
		return false, errToken
	}
	return false, nil
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

// offerName returns the name in the path: letters, digits, '-', '_', '.', '~'.
func offerName(r *http.Request) (string, error) {
	name := r.PathValue("name")
	if len(name) > control.MaxName {
		return "", fmt.Errorf("%w: name is longer than %d bytes", control.ErrBody, control.MaxName)
	}
	for _, b := range []byte(name) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case strings.IndexByte("-_.~", b) >= 0:
		default:
			return "", fmt.Errorf("%w: name has a character other than letters, digits, and -_.~", control.ErrBody)
		}
	}
	return name, nil
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
