// Accept answers an offer that dial has printed, writes what the peer sends to the standard
// output, and sends the standard input if that is not a terminal.
//
//	go run ./examples/accept OFFER > file
//
// Without an offer it prints its ID, and waits for an offer in the relay's mailbox, which
// dial -to ID puts there. With -identity it has the same ID each time:
//
//	go run ./examples/accept -relay quicway://HOST:PORT?pin=PIN -identity bob.key > file
package main

import (
	"bufio"
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

var accept = program.Program{
	Name: "accept",
	Does: "answers an offer of dial, prints what the peer sends, and sends the standard input",
	Uses: []program.Use{
		{Args: "OFFER > FILE", Does: "answer an offer that dial has printed (- reads it from the first line of the standard input)"},
		{Args: "-relay URL -identity KEY > FILE", Does: "wait for an offer of dial -to, under the ID of a key that is created if missing"},
		{Args: "-relay URL -identity KEY -from bob > FILE", Does: "the same, from one peer only, by its ID or its name in the file of -peers"},
	},
}

// options has the flags.
type options struct {
	relays pipe.Relays
	policy pipe.Policy
	peer   peer.Peer
	from   string
}

func main() {
	var o options
	o.relays.Flag("`URL` of a relay at which to wait for an offer")
	flag.StringVar(&o.from, "from", "", "`ID` or name of the only peer to accept (default: any)")
	o.policy.Flags()
	o.peer.Flags()
	accept.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 1); err != nil {
			return err
		}
		return o.run(ctx, flag.Arg(0))
	})
}

func (o *options) run(ctx context.Context, offer string) (err error) {
	conf := &p2p.Config{}
	if conf.Policy, err = o.policy.Path(); err != nil {
		return err
	}
	if err := o.relays.Set(conf); err != nil {
		return err
	}
	if offer == "" && len(conf.Relays) == 0 {
		return program.Usagef("no offer and no relay given")
	}
	defer func() { err = errors.Join(err, o.peer.Close()) }()
	if err := o.peer.Set(conf); err != nil {
		return err
	}
	if o.from != "" {
		wanted, err := o.peer.Find(o.from)
		if err != nil {
			return err
		}
		conf.AllowPeer = func(id p2p.PeerID) bool { return id == wanted }
	}
	in := pipe.Stdin()
	if offer == "-" {
		if offer, in, err = firstLine(ctx, os.Stdin); err != nil {
			return err
		}
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	conn, err := o.accept(ctx, endpoint, offer)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "connected to", o.peer.Show(conn.RemoteID()))
	side := pipe.Side{Conn: conn, In: in, Out: os.Stdout, Size: -1, Last: true}
	res, err := side.Run(ctx)
	if err != nil {
		return err
	}
	res.Print(conn)
	<-conn.Context().Done() // the dialer closes it when all has arrived
	return nil
}

// accept answers the offer, or waits for one at the relay.
func (o *options) accept(ctx context.Context, endpoint *p2p.Endpoint, offer string) (*p2p.Conn, error) {
	if offer != "" {
		parsed, err := p2p.ParseOffer(offer)
		if err != nil {
			return nil, err
		}
		return endpoint.AcceptOffer(ctx, parsed)
	}
	fmt.Fprintf(os.Stderr, "The other side runs:\n\ndial -to %v FILE\n\n", endpoint.ID())
	return endpoint.Accept(ctx)
}

// firstLine reads the offer from the standard input, until ctx is done. The returned reader has
// the rest.
func firstLine(ctx context.Context, stdin io.Reader) (string, io.Reader, error) {
	type result struct {
		line string
		err  error
	}
	r, read := bufio.NewReader(stdin), make(chan result, 1)
	go func() { // this may last for ever
		line, err := r.ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", nil, ctx.Err()
	case got := <-read:
		if got.err != nil && got.line == "" {
			return "", nil, fmt.Errorf("read offer from stdin: %w", got.err)
		}
		return got.line, r, nil
	}
}
