package p2p

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/relay"
)

// restartRelay replaces the relay by one with other limits, which has nothing of what it had.
func (l *lab) restartRelay(conf relay.Config) {
	l.Helper()
	l.stopRelay()
	conf.Secret, conf.TTL = relaySecret, 20*time.Second
	l.server, l.served = l.serveWith(relayAddr, &conf)
}

// TestManyDialers has several endpoints dial one peer, more often than the mailbox has room. It refuses
// some offers, and removes others to make room. All dials succeed in the end.
func TestManyDialers(t *testing.T) {
	runLab(t, func(l *lab) {
		l.restartRelay(relay.Config{MaxOffersPerName: 4})
		accepter := l.host(nil)
		var dials sync.WaitGroup
		dial := func(dialer *host) {
			dials.Go(func() {
				began := time.Now()
				if _, err := dialer.Dial(l.Context(), accepter.ID(), nil); err != nil {
					l.Error(err)
				} else if took := time.Since(began); took >= 20*time.Second {
					l.Errorf("a dial took %v", took)
				}
			})
		}
		first, others := l.host(nil), []*host{l.host(nil), l.host(nil)}
		for range maxOffered {
			dial(first) // takes all the room
		}
		time.Sleep(time.Second)
		for _, dialer := range others {
			for range maxOffered {
				dial(dialer)
			}
		}
		time.Sleep(time.Second)
		l.acceptAll(accepter)
		dials.Wait()
	})
}

// TestOfferOutlivesRelay restarts the relay while an offer waits in its mailbox. The dialer leaves it
// again.
func TestOfferOutlivesRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		dialer, accepter := l.host(nil), l.host(nil)
		dialed := make(chan error, 1)
		go func() {
			_, err := dialer.Dial(l.Context(), accepter.ID(), nil)
			dialed <- err
		}()
		time.Sleep(time.Second)
		l.restartRelay(relay.Config{})
		time.Sleep(20 * time.Second)
		if n := l.server.Stats().Offers; n != 1 {
			l.Errorf("%d offers in the mailbox of the relay that was restarted", n)
		}
		l.acceptAll(accepter)
		if err := <-dialed; err != nil {
			l.Error(err)
		}
	})
}

// TestNoRoomForOffer checks that a dial waits for room in the mailbox, and what its error says if there is
// none until its context is done.
func TestNoRoomForOffer(t *testing.T) {
	runLab(t, func(l *lab) {
		l.restartRelay(relay.Config{MaxOffersPerName: 1})
		accepter := l.host(nil)
		ctx, stop := context.WithCancel(l.Context())
		first := make(chan error, 1)
		go func() {
			_, err := l.host(nil).Dial(ctx, accepter.ID(), nil)
			first <- err
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		short, cancel := context.WithTimeout(l.Context(), 10*time.Second)
		defer cancel()
		_, err := l.host(nil).Dial(short, accepter.ID(), nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrRelayRefused) || errors.Is(err, ErrPeerAbsent) {
			l.Errorf("no room for ten seconds: %v", err)
		}
		second := make(chan error, 1)
		go func() {
			_, err := l.host(nil).Dial(l.Context(), accepter.ID(), nil)
			second <- err
		}()
		time.Sleep(time.Second)
		stop()
		<-first
		l.acceptAll(accepter)
		if err := <-second; err != nil {
			l.Errorf("there was room after a while: %v", err)
		}
	})
}

// TestNoMailbox checks that a relay without a mailbox refuses an offer at once.
func TestNoMailbox(t *testing.T) {
	runLab(t, func(l *lab) {
		l.restartRelay(relay.Config{MaxOffers: -1})
		dialer, accepter := l.host(nil), l.host(nil)
		began := time.Now()
		_, err := dialer.Dial(l.Context(), accepter.ID(), nil)
		if !errors.Is(err, ErrRelayRefused) || time.Since(began) >= time.Second {
			l.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
