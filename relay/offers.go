package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// servePutOffer leaves an offer for somebody, for whoever may open sessions.
func (s *Server) servePutOffer(w http.ResponseWriter, r *http.Request, c *client) error {
	name, owner, err := offerName(r)
	if err != nil {
		return err
	}
	account, err := s.authorize(r.Context(), c, bearer(r), LeaveOffer, name)
	if err != nil {
		return errToken
	}
	var session control.SessionID
	if text := r.URL.Query().Get(control.SessionParameter); text != "" {
		if err := session.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, int64(s.conf.MaxOfferSize)+1))
	if err != nil {
		return fmt.Errorf("%w: read offer: %w", control.ErrBody, err)
	}
	if len(text) == 0 {
		return fmt.Errorf("%w: the offer is empty", control.ErrBody)
	}
	from := sender{s.secrets.tokens.account(account), siteOf(remoteAddr(c.conn).Addr())}
	box := boxName{text: name}
	if owner == (pki.KeyID{}) {
		box.account = from.account
	}
	if err := s.mailbox.put(box, from, session, text); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveTakeOffer hands out an offer, waiting for one as long as asked to.
func (s *Server) serveTakeOffer(w http.ResponseWriter, r *http.Request, c *client) error {
	box, err := s.mayTake(r, c)
	if err != nil {
		return err
	}
	asked, err := seconds(r, "wait")
	if err != nil {
		return err
	}
	again, err := seconds(r, control.AgainParameter)
	if err != nil {
		return err
	}
	wait := min(asked, control.MaxWait)
	defer s.listen(c)()
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	o, err := s.mailbox.take(ctx, box, c, again)
	if err != nil {
		return err
	}
	if o == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	w.Header().Set(control.OfferField, strconv.FormatUint(o.number, 10))
	w.Header().Set(control.SenderField, s.secrets.tokens.sender(o.from))
	if _, err := w.Write(o.text); err != nil || r.Context().Err() != nil {
		s.mailbox.unshow(o, c)
	}
	return nil
}

// seconds returns a parameter of a request, which is zero if it is missing.
func seconds(r *http.Request, name string) (time.Duration, error) {
	text := r.URL.Query().Get(name) // not FormValue, which reads the body too, whatever its size
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is not a number of seconds", control.ErrBody, name)
	}
	return time.Duration(n) * time.Second, nil
}

// serveAcknowledge forgets an offer for whoever may take it.
func (s *Server) serveAcknowledge(w http.ResponseWriter, r *http.Request, c *client) error {
	box, err := s.mayTake(r, c)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: the offer's number is none", control.ErrBody)
	}
	s.mailbox.acknowledge(box, number)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// mayTake says which box a request may take offers from. If the name is the ID of a
// key, who proves with its certificate to have that key; else who may do that by
// its token, from what its account has there.
func (s *Server) mayTake(r *http.Request, c *client) (boxName, error) {
	name, owner, err := offerName(r)
	if err != nil {
		return boxName{}, err
	}
	if owner != (pki.KeyID{}) {
		have, err := pki.PeerKeyID(c.conn.ConnectionState().TLS)
		if err != nil || have != owner {
			return boxName{}, errNotAddressee
		}
		if token := bearer(r); token != "" && !c.shown.Load() && c.asked.CompareAndSwap(false, true) {
			_, _ = s.authorize(r.Context(), c, token, AwaitOffers, name) // it need not have one
		}
		return boxName{text: name}, nil
	}
	account, err := s.authorize(r.Context(), c, bearer(r), TakeOffer, name)
	if err != nil {
		return boxName{}, errToken
	}
	return boxName{name, s.secrets.tokens.account(account)}, nil
}

// offerName returns the name in the path, in lower case, and the key that it is the
// ID of, if it is one's. A name has letters, digits, '-', '_', '.', '~'.
func offerName(r *http.Request) (name string, owner pki.KeyID, err error) {
	name = strings.ToLower(r.PathValue("name"))
	if len(name) > control.MaxName {
		return "", owner, fmt.Errorf("%w: name is longer than %d bytes", control.ErrBody, control.MaxName)
	}
	for _, b := range []byte(name) {
		if ('a' > b || b > 'z') && ('0' > b || b > '9') && strings.IndexByte("-_.~", b) < 0 {
			return "", owner, fmt.Errorf("%w: name has a character other than letters, digits, and -_.~", control.ErrBody)
		}
	}
	if owner, err = pki.ParseKeyID(name); err != nil {
		return name, pki.KeyID{}, nil
	}
	return owner.String(), owner, nil
}
