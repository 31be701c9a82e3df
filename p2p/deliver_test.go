package p2p

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestDeliverContext checks that the context of a DeliverFunc goes on after the function has
// returned, until the offer expires.
func TestDeliverContext(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		var given context.Context
		accepted := make(chan error, 1)
		_, err := alice.Dial(l.Context(), bob.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
			given = ctx
			go func() {
				_, err := bob.AcceptOffer(ctx, o)
				accepted <- err
			}()
			return nil
		}})
		if err := errors.Join(err, <-accepted); err != nil {
			l.Fatal(err)
		}
		if given.Err() != nil {
			l.Errorf("ends with Dial: %v", context.Cause(given))
		}
		time.Sleep(defaultOfferTTL + time.Second)
		if err := context.Cause(given); !errors.Is(err, ErrOfferExpired) {
			l.Errorf("ends with %v, want %v", err, ErrOfferExpired)
		}
	})
}
