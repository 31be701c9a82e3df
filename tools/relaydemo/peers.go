//go:build unix

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/quicway/quicway/p2p"
)

// peers are two endpoints, and the connections between them.
type peers struct {
	dialer, accepter *p2p.Endpoint
	pinging          *p2p.Conn
	conns            []*p2p.Conn // both ends of each connection
}

// newPeers makes endpoints that know all relays. They send packets through relays only,
// because on one host they would find each other directly.
func newPeers(urls []p2p.Relay, verbose bool) (*peers, error) {
	conf := &p2p.Config{
		Relays:             urls,
		Policy:             p2p.RelayOnly,
		DisablePortMapping: true,
		OfferRelays:        func(netip.AddrPort) bool { return true },
	}
	var p peers
	for name, e := range map[string]**p2p.Endpoint{"dialer": &p.dialer, "accepter": &p.accepter} {
		if verbose {
			conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("at", name)
		}
		var err error
		if *e, err = p2p.NewEndpoint(conf); err != nil {
			p.close()
			return nil, err
		}
	}
	return &p, nil
}

// connect makes a connection, and returns both ends.
func (p *peers) connect(ctx context.Context) (dialed, accepted *p2p.Conn, err error) {
	accepting := make(chan error, 1)
	dialed, err = p.dialer.Dial(ctx, p.accepter.ID(), &p2p.DialConfig{Deliver: func(ctx context.Context, offer p2p.Offer) error {
		go func() {
			var err error
			accepted, err = p.accepter.AcceptOffer(ctx, offer)
			accepting <- err
		}()
		return nil
	}})
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	if err := <-accepting; err != nil {
		return nil, nil, fmt.Errorf("accept: %w", err)
	}
	p.conns = append(p.conns, dialed, accepted)
	return dialed, accepted, nil
}

// lost returns why connections have ended.
func (p *peers) lost() (errs []error) {
	for _, c := range p.conns {
		if err := c.Err(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (p *peers) close() {
	for _, e := range []*p2p.Endpoint{p.dialer, p.accepter} {
		if e != nil {
			_ = e.Close()
		}
	}
}
