// Dial connects to a peer, sends it a file or the standard input, and writes what the peer
// sends to the standard output.
//
//	go run ./examples/dial -relay quicway://TOKEN@HOST:PORT?pin=PIN FILE
//
// It prints the offer, which the peer passes to accept. With -to the offer goes through the
// relay's mailbox, to a peer that is named by its ID, or by its name in the file of -peers:
//
//	go run ./examples/dial -relay quicway://TOKEN@HOST:PORT?pin=PIN -to ID -remember bob FILE
//	go run ./examples/dial -relay quicway://TOKEN@HOST:PORT?pin=PIN -to bob FILE
//
// With several -relay the connection survives the death of one of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/quicway/quicway/examples/internal/peer"
	"github.com/quicway/quicway/examples/internal/pipe"
	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/p2p"
)

var dial = program.Program{
	Name: "dial",
	Does: "connects to a peer, sends it a file or the standard input, and prints what the peer sends",
	Uses: []program.Use{
		{Args: "-relay URL FILE", Does: "print an offer, which the other side passes to accept, and send a file"},
		{Args: "-relay URL -identity KEY -to ID -remember bob", Does: "be a pipe to a peer that runs accept, and call it bob from now on"},
		{Args: "-relay URL -identity KEY -to bob FILE", Does: "send a file to a peer by its name"},
	},
}

// options has the flags.
type options struct {
	relays       pipe.Relays
	policy       pipe.Policy
	peer         peer.Peer
	to, remember string
	qr           bool
}

func main() {
	var o options
	o.relays.Flag("`URL` of a relay")
	flag.StringVar(&o.to, "to", "", "`ID` or name of the peer; the offer goes through the relay's mailbox (default: print the offer)")
	flag.StringVar(&o.remember, "remember", "", "give the peer this `name` in the file of -peers, once it has answered")
	flag.BoolVar(&o.qr, "qr", false, "make the offer small, with X25519 as its only key exchange, and also print it as a QR code")
	o.policy.Flags()
	o.peer.Flags()
	dial.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 1); err != nil {
			return err
		}
		return o.run(ctx, flag.Arg(0))
	})
}

func (o *options) run(ctx context.Context, file string) (err error) {
	conf := &p2p.Config{SmallOffers: o.qr}
	if conf.Policy, err = o.policy.Path(); err != nil {
		return err
	}
	if err := o.relays.Set(conf); err != nil {
		return err
	}
	if o.qr && o.to != "" {
		return program.Usagef("-qr and -to exclude each other: the offer goes through the mailbox")
	}
	if len(conf.Relays) == 0 {
		return program.Usagef("no relay given: want -relay or $QUICWAY_RELAY")
	}
	in, size, err := open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	defer func() { err = errors.Join(err, o.peer.Close()) }()
	if err := o.peer.Set(conf); err != nil {
		return err
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	conn, err := o.dial(ctx, endpoint)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "connected to", o.peer.Show(conn.RemoteID()))
	if o.remember != "" {
		remembered := o.peer.Remember(o.remember, conn.RemoteID())
		defer func() { err = errors.Join(err, remembered) }() // the file is sent all the same
	}
	side := pipe.Side{Conn: conn, In: in, Out: os.Stdout, Size: size}
	res, err := side.Run(ctx)
	if err != nil {
		return err
	}
	res.Print(conn)
	return nil
}

// dial connects to the peer.
func (o *options) dial(ctx context.Context, endpoint *p2p.Endpoint) (*p2p.Conn, error) {
	if o.to == "" {
		return endpoint.Dial(ctx, p2p.PeerID{}, &p2p.DialConfig{Deliver: o.show})
	}
	id, err := o.peer.Find(o.to)
	if err != nil {
		return nil, err
	}
	return endpoint.Dial(ctx, id, nil)
}

// show prints the offer.
func (o *options) show(_ context.Context, offer p2p.Offer) error {
	fmt.Fprintf(os.Stderr, "The other side runs, before %v:\n\n", offer.Expires().Format("15:04:05"))
	fmt.Fprintf(os.Stderr, "accept %v\n\n", offer)
	if o.qr {
		printQR(os.Stderr, offer.String())
	}
	return nil
}

// open opens a file and returns its size, or -1 if it is a pipe or a device, or one of those in
// /proc, which have no size. Without a file it returns the standard input and -1.
func open(file string) (io.ReadCloser, int64, error) {
	if file == "" || file == "-" {
		return os.Stdin, -1, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, errors.Join(err, f.Close())
	case info.IsDir():
		return nil, 0, errors.Join(fmt.Errorf("%s is a folder: want a file, such as tar makes of it", file), f.Close())
	case !info.Mode().IsRegular() || info.Size() == 0:
		return f, -1, nil
	}
	return f, info.Size(), nil
}
