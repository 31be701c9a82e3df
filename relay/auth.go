package relay

import (
	"context"
	"crypto/subtle"
	"fmt"
	"sync/atomic"
)

// authority decides about access tokens.
type authority struct {
	decide func(context.Context, AuthRequest) (account string, err error) // Config.Authorize
	tokens *tokenRing
}

// authorize checks an access token that a client has shown for a purpose. Name is the
// name of the offer, or "". It returns the tags that the account can have, the current one
// first.
func (a *authority) authorize(ctx context.Context, c *client, token string, what Purpose, name string) ([]accountTag, error) {
	account, err := a.decide(ctx, AuthRequest{Token: token, Purpose: what, Name: name, Remote: c.remote()})
	if err != nil {
		return nil, fmt.Errorf("authorize: %w", err)
	}
	c.authenticate()
	return a.tokens.accounts(account), nil
}

// authorizeToken is the default of [Config.Authorize]. It accepts the current token, and
// old ones, whose uses it counts.
func authorizeToken(current string, old []string, oldUses *atomic.Uint64) func(context.Context, AuthRequest) (string, error) {
	return func(_ context.Context, req AuthRequest) (string, error) {
		if subtle.ConstantTimeCompare([]byte(req.Token), []byte(current)) == 1 {
			return "", nil
		}
		for _, o := range old {
			if subtle.ConstantTimeCompare([]byte(req.Token), []byte(o)) == 1 {
				oldUses.Add(1)
				return "", nil
			}
		}
		return "", ErrUnauthorized
	}
}
