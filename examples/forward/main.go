// Forward makes TCP and UDP ports of one machine reachable at another, through NATs, as ssh -L
// and -R do.
//
// On the machine that has the ports, or lets others listen:
//
//	go run ./examples/forward -relay quicway://TOKEN@HOST:PORT?pin=PIN -identity key.pem -allow ID
//
// On the other one, so that its port 8080 is port 80 of the first one, and port 2222 of the first
// one its own SSH server:
//
//	go run ./examples/forward -relay URL -identity key.pem -to ID -L 8080:localhost:80 -R 2222:localhost:22
//
// It connects again by itself, and says which side cannot do what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/examples/forward/internal/ports"
	"github.com/quicway/quicway/examples/internal/peer"
	"github.com/quicway/quicway/examples/internal/pipe"
	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/p2p"
)

var forward = program.Program{
	Name: "forward",
	Does: "makes TCP and UDP ports of one machine reachable at another, as ssh -L and -R do",
	Uses: []program.Use{
		{Args: "-relay URL -identity KEY -allow bob", Does: "let the peer bob use the ports of this host's loopback addresses"},
		{Args: "-relay URL -identity KEY -to alice -L 8080:localhost:80", Does: "make port 80 of alice port 8080 here"},
		{Args: "-relay URL -identity KEY -to alice -R 2222:localhost:22", Does: "make port 22 of this host port 2222 of alice"},
		{Args: "-relay URL -identity KEY -to alice -L udp:5353:10.0.0.1:53", Does: "ask a DNS server that alice reaches, if alice has -permit 10.0.0.1:53"},
	},
}

// options has the flags.
type options struct {
	relays       pipe.Relays
	policy       pipe.Policy
	peer         peer.Peer
	to           string
	here, there  []ports.Spec  // -L, -R
	allow        []string      // IDs or names
	permit, bind ports.Permits // -permit, -permit-listen
	udpIdle      time.Duration
}

func main() {
	var o options
	o.relays.Flag("`URL` of a relay")
	flag.StringVar(&o.to, "to", "", "`ID` or name of the peer to connect to (default: wait for peers)")
	flag.Func("L", "listen here, and connect from the peer: `[tcp:|udp:][HOST:]PORT:HOST:PORT`; may be given several times", specs(&o.here))
	flag.Func("R", "listen at the peer, and connect from here: `[tcp:|udp:][HOST:]PORT:HOST:PORT`; may be given several times", specs(&o.there))
	flag.Func("allow", "`ID` or name of a peer that may connect, or any; may be given several times", func(s string) error {
		o.allow = append(o.allow, s)
		return nil
	})
	flag.Func("permit", "`HOST:PORT` that peers may connect to from here, of which both may be *, by TCP and UDP; may be given several times (default localhost:*)", o.permit.Add)
	flag.Func("permit-listen", "`HOST:PORT` at which peers may listen here, as -permit (default localhost:*)", o.bind.Add)
	flag.DurationVar(&o.udpIdle, "udp-idle", time.Minute, "end a UDP flow that has been silent for so long")
	o.policy.Flags()
	o.peer.Flags()
	forward.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 0); err != nil {
			return err
		}
		return o.run(ctx)
	})
}

func specs(to *[]ports.Spec) func(string) error {
	return func(text string) error {
		spec, err := ports.ParseSpec(text)
		*to = append(*to, spec)
		return err
	}
}

// check says what is wrong with the flags.
func (o *options) check() error {
	switch forwards := len(o.here)+len(o.there) > 0; {
	case o.udpIdle <= 0:
		return program.Usagef("-udp-idle must be positive")
	case o.to != "" && len(o.allow)+len(o.permit)+len(o.bind) > 0:
		return program.Usagef("-allow, -permit and -permit-listen are for the side without -to")
	case o.to != "" && !forwards:
		return program.Usagef("-to needs -L or -R: what to forward")
	case o.to == "" && forwards:
		return program.Usagef("-L and -R need -to: the ID that the other side prints")
	case o.to == "" && len(o.allow) == 0:
		return program.Usagef("want -allow ID or -allow any: who may use the ports of this host")
	}
	return nil
}

func (o *options) run(ctx context.Context) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	log := ratelog.New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	conf := &p2p.Config{Logger: log}
	if conf.Policy, err = o.policy.Path(); err != nil {
		return err
	}
	if err := o.relays.Set(conf); err != nil {
		return err
	}
	if len(conf.Relays) == 0 {
		return program.Usagef("no relay given: want -relay or $QUICWAY_RELAY")
	}
	defer func() { err = errors.Join(err, o.peer.Close()) }()
	if err := o.peer.Set(conf); err != nil {
		return err
	}
	ports.SetQUIC(conf.QUIC)
	if o.to != "" {
		err = o.connect(ctx, conf)
	} else {
		err = o.accept(ctx, conf)
	}
	if ctx.Err() != nil {
		return nil // it was told to end
	}
	return err
}

// allowed returns the peers that may connect; nil are all.
func (o *options) allowed() (func(p2p.PeerID) bool, error) {
	if slices.Contains(o.allow, "any") {
		return nil, nil
	}
	var ids []p2p.PeerID
	for _, name := range o.allow {
		id, err := o.peer.Find(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return func(id p2p.PeerID) bool { return slices.Contains(ids, id) }, nil
}

// accept serves the peers that connect.
func (o *options) accept(ctx context.Context, conf *p2p.Config) (err error) {
	if conf.AllowPeer, err = o.allowed(); err != nil {
		return err
	}
	for _, permits := range []*ports.Permits{&o.permit, &o.bind} {
		if len(*permits) == 0 {
			if err := permits.Add("localhost:*"); err != nil {
				return err
			}
		}
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	fmt.Fprintf(os.Stderr, "The other side runs, for example:\n\nforward -to %v -L 8080:localhost:80\n\n", endpoint.ID())
	return ports.Accept(ctx, &ports.Config{Targets: o.permit, Listen: o.bind, UDPIdle: o.udpIdle, Log: conf.Logger}, endpoint.Accept)
}

// connect listens here, and keeps connected to the peer.
func (o *options) connect(ctx context.Context, conf *p2p.Config) error {
	id, err := o.peer.Find(o.to)
	if err != nil {
		return err
	}
	sessionConf := &ports.Config{UDPIdle: o.udpIdle, Log: conf.Logger}
	// The peer may connect to nothing else, by TCP or UDP. If the target is localhost it may
	// connect to the port at all loopback addresses.
	for _, spec := range o.there {
		if err := sessionConf.Targets.Add(spec.Target); err != nil {
			return err
		}
	}
	listeners, err := listen(o.here, sessionConf)
	if err != nil {
		return err
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	ctx, cancel := context.WithCancel(ctx)
	link := ports.NewLink(sessionConf, func(ctx context.Context) (*p2p.Conn, error) { return endpoint.Dial(ctx, id, nil) })
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer endpoint.Close()
	defer cancel()
	for _, l := range listeners {
		tasks.Go(func() { l.Run(ctx, link) })
	}
	return link.Run(ctx, func(s *ports.Session) { s.KeepListening(o.there) })
}

// listen begins to listen for all that is forwarded from here.
func listen(specs []ports.Spec, conf *ports.Config) (listeners []*ports.Listener, err error) {
	for _, spec := range specs {
		l, err := ports.Listen(spec, conf)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot listen here: %w", err), closeAll(listeners))
		}
		conf.Log.Info("listening here", "network", spec.Network, "address", l.Addr(), "target", spec.Target)
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []*ports.Listener) (err error) {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}
