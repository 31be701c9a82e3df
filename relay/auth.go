package relay

import (
	"context"
	"crypto/subtle"
	"fmt"
)

// authority decides about access tokens.
type authority struct {
	decide func(context.Context, AuthRequest) (account string, err error) // Config.Authorize
	tokens *tokenKey
}

// authorize checks an access token that a client has shown for a purpose. Name is the
// name of the offer, or "".
func (a *authority) authorize(ctx context.Context, c *client, token string, what Purpose, name string) (accountTag, error) {
	account, err := a.decide(ctx, AuthRequest{Token: token, Purpose: what, Name: name, Remote: remoteAddr(c.conn)})
	if err != nil {
		return accountTag{}, fmt.Errorf("authorize: %w", err)
	}
	c.authenticate()
	return a.tokens.account(account), nil
}

// authorizeToken is the default of [Config.Authorize]: it accepts one token.
func authorizeToken(want string) func(context.Context, AuthRequest) (string, error) {
	return func(_ context.Context, req AuthRequest) (string, error) {
		if subtle.ConstantTimeCompare([]byte(req.Token), []byte(want)) != 1 {
			return "", ErrUnauthorized
		}
		return "", nil
	}
}
