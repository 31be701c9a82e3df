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

// offerAPI serves the requests about offers.
type offerAPI struct {
	maxSize   int
	auth      *authority
	mailbox   *mailbox
	registrar *registrar
	closing   context.Context // done when the server closes
}

// servePut leaves an offer under a name, for a client that may do so by its token.
func (a *offerAPI) servePut(w http.ResponseWriter, r *http.Request, c *client) error {
	name, err := a.mayLeave(r.Context(), c, bearer(r), r.PathValue("name"))
	if err != nil {
		return err
	}
	var session control.SessionID
	if text := r.URL.Query().Get(control.SessionParameter); text != "" {
		if err := session.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	}
	if err := a.registrar.mayOffer(session); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, int64(a.maxSize)+1))
	if err != nil {
		return fmt.Errorf("%w: read offer: %w", control.ErrBody, err)
	}
	if len(text) == 0 {
		return fmt.Errorf("%w: the offer is empty", control.ErrBody)
	}
	if err := a.mailbox.put(name.box, name.from, session, text); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// leaving is what a client may do that leaves an offer: in which box, and as whom.
type leaving struct {
	box  boxName
	from sender
}

// mayLeave returns how a client may leave an offer under a name by its token.
func (a *offerAPI) mayLeave(ctx context.Context, c *client, token, name string) (leaving, error) {
	name, owner, err := parseName(name)
	if err != nil {
		return leaving{}, err
	}
	accounts, err := a.auth.authorize(ctx, c, token, LeaveOffer, name)
	if err != nil {
		return leaving{}, errToken
	}
	l := leaving{boxName{text: name}, sender{accounts[0], siteOf(remoteAddr(c.conn).Addr())}}
	if owner == (pki.KeyID{}) {
		l.box.account = accounts[0]
	}
	return l, nil
}

// leave leaves the offer that has come with the registration of a session.
func (a *offerAPI) leave(ctx context.Context, c *client, token string, session control.SessionID, o *control.LeftOffer) error {
	name, err := a.mayLeave(ctx, c, token, o.Name)
	if err != nil {
		return err
	}
	return a.mailbox.put(name.box, name.from, session, []byte(o.Text))
}

// serveTake hands out an offer, or several if the client can take them. It waits for offers
// as long as the request says.
func (a *offerAPI) serveTake(w http.ResponseWriter, r *http.Request, c *client) error {
	box, err := a.mayTake(r, c)
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
	if r.URL.Query().Has(control.StreamParameter) {
		return a.serveFeed(w, c, box, wait, again)
	}
	defer c.listen()()
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(a.closing, cancel)()
	o, err := a.mailbox.take(ctx, box, c, again)
	if err != nil {
		return err
	}
	if o == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	w.Header().Set(control.OfferField, strconv.FormatUint(o.number, 10))
	w.Header().Set(control.SenderField, a.auth.tokens.sender(o.from))
	if _, err := w.Write(o.text); err != nil || r.Context().Err() != nil {
		a.mailbox.undoHandout(o, c)
	}
	return nil
}

// seconds returns a parameter of a request, or 0 if it is missing.
func seconds(r *http.Request, name string) (time.Duration, error) {
	text := r.URL.Query().Get(name) // not FormValue, which reads a body of any size
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is not a number of seconds", control.ErrBody, name)
	}
	return time.Duration(n) * time.Second, nil
}

// serveAcknowledge removes an offer, for a client that may take it.
func (a *offerAPI) serveAcknowledge(w http.ResponseWriter, r *http.Request, c *client) error {
	box, err := a.mayTake(r, c)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: the number of the offer is not a decimal number", control.ErrBody)
	}
	a.mailbox.acknowledge(box, number)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// mayTake returns the box that a request may take offers from. If the name is the ID of
// a key, the client must have that key's certificate. If not, the client must show a
// token, and takes what its own account has left there.
func (a *offerAPI) mayTake(r *http.Request, c *client) (boxName, error) {
	name, owner, err := parseName(r.PathValue("name"))
	if err != nil {
		return boxName{}, err
	}
	if owner != (pki.KeyID{}) {
		have, err := pki.PeerKeyID(c.conn.ConnectionState().TLS)
		if err != nil || have != owner {
			return boxName{}, errNotAddressee
		}
		if token := bearer(r); token != "" && !c.authenticated.Load() && c.asked.CompareAndSwap(false, true) {
			_, _ = a.auth.authorize(r.Context(), c, token, AwaitOffers, name) // the token is optional
		}
		return boxName{text: name}, nil
	}
	accounts, err := a.auth.authorize(r.Context(), c, bearer(r), TakeOffer, name)
	if err != nil {
		return boxName{}, errToken
	}
	return boxName{name, accounts[0]}, nil
}

// parseName returns the name of an offer in lower case, and the ID of a key that it is,
// or the zero KeyID. A name consists of letters, digits, and "-_.~".
func parseName(text string) (name string, owner pki.KeyID, err error) {
	name = strings.ToLower(text)
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
