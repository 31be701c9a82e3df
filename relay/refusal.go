package relay

import (
	"errors"
	"net/http"

	"github.com/quicway/quicway/internal/control"
)

// refusal is an error that refuses a request, with the answer that the client gets.
type refusal struct {
	status int // of HTTP
	code   control.Code
	text   string
}

func (r *refusal) Error() string { return r.text }

var (
	errToken        = &refusal{http.StatusUnauthorized, control.CodeUnauthorized, "the token is not valid here"}
	errNotAddressee = &refusal{http.StatusForbidden, control.CodeForbidden, "only the holder of the key may take its offers"}
	errLegTaken     = &refusal{http.StatusForbidden, control.CodeForbidden, "the leg belongs to another key"}
	errLoop         = &refusal{http.StatusForbidden, control.CodeForbidden, "the leg's address is the relay's own"}
	errMember       = &refusal{http.StatusForbidden, control.CodeForbidden, "the leg's address is another relay's"}
	errEnded        = &refusal{http.StatusForbidden, control.CodeForbidden, "the operator of the relay has ended the session"}
	errLegEnded     = &refusal{http.StatusConflict, control.CodeConflict, "the leg has ended"}
	errJoinUsed     = &refusal{http.StatusConflict, control.CodeConflict, "the join token has been used already"}
	errInitial      = &refusal{http.StatusConflict, control.CodeConflict, "initial_dcid belongs to another leg"}
	errDisplaced    = &refusal{http.StatusConflict, control.CodeConflict, "another connection with the same key has asked for its offers meanwhile"}
	errSubscribed   = &refusal{http.StatusConflict, control.CodeConflict, "another request on this connection gets the events"}
	errNoSession    = &refusal{http.StatusNotFound, control.CodeNotFound, "there is no such session or leg"}

	errTooManySessions = &refusal{http.StatusTooManyRequests, control.CodeLimit, "the relay has no room for another session"}
	errAccountSessions = &refusal{http.StatusTooManyRequests, control.CodeLimit, "the account has no room for another session"}
	errSourceSessions  = &refusal{http.StatusTooManyRequests, control.CodeLimit, "this address has no room for another session"}
	errMailboxFull     = &refusal{http.StatusTooManyRequests, control.CodeLimit, "the mailbox has no room for another offer"}
	errWaiters         = &refusal{http.StatusTooManyRequests, control.CodeLimit, "too many requests wait for this name"}
	errOfferSize       = &refusal{http.StatusRequestEntityTooLarge, control.CodeForbidden, "the offer is too large"}
	errNoMailbox       = &refusal{http.StatusForbidden, control.CodeForbidden, "the relay has no mailbox"}
	errDraining        = &refusal{http.StatusServiceUnavailable, control.CodeShutdown, "the relay is shutting down"}
)

// errAway is the error about the address of a client that is not connected.
var errAway = errors.New("the client is not connected")

// errSuperseded ends a request for offers when a later one on the same connection gets them.
var errSuperseded = errors.New("a later request on this connection gets the offers")

// errTooManyConnections refuses, or closes, a control connection.
var errTooManyConnections = errors.New("too many control connections")

// elsewhereError refuses a session that another relay may take.
type elsewhereError struct {
	why   error
	relay control.Member
}

func (e *elsewhereError) Error() string {
	return e.why.Error() + "; another relay may: " + e.relay.Addr
}

// problemOf returns the answer to a request that failed with err.
func problemOf(err error) (status int, p *control.Problem) {
	var elsewhere *elsewhereError
	if errors.As(err, &elsewhere) {
		return http.StatusServiceUnavailable, &control.Problem{Code: control.CodeElsewhere, Message: elsewhere.Error(), Relay: elsewhere.relay}
	}
	var r *refusal
	if errors.As(err, &r) {
		return r.status, &control.Problem{Code: r.code, Message: r.text}
	}
	if errors.Is(err, control.ErrBody) {
		return http.StatusBadRequest, &control.Problem{Code: control.CodeMalformed, Message: err.Error()}
	}
	return http.StatusInternalServerError, &control.Problem{Code: control.CodeMalformed, Message: "the request could not be served"}
}
