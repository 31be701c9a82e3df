package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

// legTTL is how long the relay keeps a silent leg.
const legTTL = 10 * time.Second

// stage is the network and its relay.
type stage struct {
	*result
	hosts   *hosts
	options *options
	program *xdp.Program // nil: the loop forwards
	store   *cid.MemoryStore
	secret  []byte

	mu     sync.Mutex // guards the following
	server *relay.Server
	where  p2p.Relay
	served chan error
}

// play runs a stage, and measures the resources before and after.
func play(ctx context.Context, h *hosts, o *options, name string) (*result, error) {
	s := &stage{
		result:  newResult(name, o),
		hosts:   h,
		options: o,
		store:   cid.NewMemoryStore(nil),
		secret:  make([]byte, 32),
	}
	rand.Read(s.secret)
	if name == "xdp" {
		if err := s.attach(); err != nil {
			return nil, err
		}
		defer s.program.Close()
	}
	if err := s.warm(ctx); err != nil {
		return nil, fmt.Errorf("before it begins: %w", err)
	}
	var err error
	if s.before, err = s.calm(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "soak: %s: %d endpoints for %v\n", name, o.endpoints, o.duration)
	if err := s.soak(ctx); err != nil {
		return nil, err
	}
	return s.result, s.settle(ctx)
}

// attach loads the XDP program and attaches it to the relay's interfaces.
func (s *stage) attach() (err error) {
	if s.program, err = xdp.Load(&xdp.Config{Sessions: 4096}); err != nil {
		return err
	}
	for i := range 3 {
		if err = s.hosts.relay.Run(func() error {
			_, err := s.program.Attach(towards(i), xdp.Native)
			return err
		}); err != nil {
			return errors.Join(err, s.program.Close())
		}
	}
	return nil
}

// warm runs a short stage, so that what a process allocates once is not counted later.
func (s *stage) warm(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p := &pair{stage: s, index: 0}
	err := p.open()
	if err == nil {
		err = p.once(ctx)
	}
	p.close()
	err = errors.Join(err, s.stop())
	s.equal.Store(0)
	s.connected.Store(0)
	s.store = cid.NewMemoryStore(nil)
	return err
}

// calm measures until no more resources are released. Timers hold the memory of ended
// connections for a while.
func (s *stage) calm(ctx context.Context) (least usage, err error) {
	const enough = 5 // measurements without a release
	for same := 0; same < enough; same++ {
		u, err := s.measure()
		if err != nil {
			return u, err
		}
		if least.goroutines == 0 || u.goroutines < least.goroutines || u.descriptors < least.descriptors || u.heap < least.heap*9/10 {
			least, same = u, 0
		}
		if !pause(ctx, time.Second) {
			return least, ctx.Err()
		}
	}
	return least, nil
}

// soak runs the pairs, faults and attackers until the time is up, and stops them.
func (s *stage) soak(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	working, stop := context.WithTimeout(ctx, s.options.duration)
	defer stop()
	attacking, calm := context.WithCancel(ctx)
	var peers, attackers sync.WaitGroup
	attackers.Go(func() { s.flood(attacking) })
	attackers.Go(func() { s.halfBodies(attacking) })
	for i := range s.options.endpoints / 2 {
		peers.Go(func() { (&pair{stage: s, index: i}).churn(ctx, working) })
	}
	err := s.fail(working)
	<-working.Done()
	peers.Wait()
	calm()
	attackers.Wait()
	return errors.Join(err, s.hosts.mend(), ctx.Err())
}

// settle waits until only the relay is left of the stage, stops it, and waits until nothing
// is left.
func (s *stage) settle(ctx context.Context) error {
	deadline := time.Now().Add(s.options.settle)
	for time.Now().Before(deadline) {
		if st := s.running().Stats(); st.Sessions == 0 && st.Legs == 0 && st.Offers == 0 {
			break
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
	last := s.running().Stats()
	s.left = [2]int{last.Sessions, last.Legs}
	if err := s.stop(); err != nil {
		return err
	}
	for {
		var err error
		if s.after, err = s.measure(); err != nil {
			return err
		}
		if s.within() || time.Now().After(deadline) {
			return s.describe()
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// running returns the present relay, or nil.
func (s *stage) running() *relay.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// at returns the relay for peers.
func (s *stage) at() p2p.Relay {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.where
}

// start starts the relay.
func (s *stage) start() error {
	conn, err := listen(s.hosts.relay, relayAddr)
	if err != nil {
		return err
	}
	server, err := relay.New(&relay.Config{Secret: s.secret, Store: s.store, XDP: s.program, TTL: legTTL, OfferTTL: dialPatience}, conn)
	if err != nil {
		return err
	}
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		return errors.Join(err, server.Close())
	}
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.served = server, served
	s.where = p2p.Relay{Addr: relayAddr, Token: server.Token(), Pin: pin}
	return nil
}

// stop stops the relay, and adds its counters.
func (s *stage) stop() error {
	server := s.running()
	err := server.Close()
	<-s.served
	stats := server.Stats()
	s.result.add(&stats)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = nil // release its memory
	return err
}

// restart replaces the relay by one with the same secret and without sessions.
func (s *stage) restart() error {
	if err := s.stop(); err != nil {
		return err
	}
	return s.start()
}
