// Accept answers an offer that dial has printed, writes what the peer sends to the standard
// output, and sends the standard input if that is not a terminal.
//
//	go run ./examples/accept OFFER > file
//
// Without an offer it prints its ID, and waits for an offer in the relay's mailbox, which
// dial -to ID puts there.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/quicway/quicway/examples/internal/pipe"
	"github.com/quicway/quicway/p2p"
)

func main() {
	relay := flag.String("relay", os.Getenv("QUICWAY_RELAY"), "`URL` of the relay at which to wait for an offer (default $QUICWAY_RELAY)")
	from := flag.String("from", "", "`ID` of the only peer to accept (default: any)")
	var policy pipe.Policy
	policy.Flags()
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: accept [flags] [OFFER, or - to read it from the first line of stdin]")
		flag.PrintDefaults()
	}
	flag.Parse()
	pipe.Fail("accept", run(*relay, *from, flag.Arg(0), &policy))
}

func run(relayURL, from, offer string, policy *pipe.Policy) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conf := &p2p.Config{}
	var err error
	if conf.Policy, err = policy.Path(); err != nil {
		return err
	}
	if from != "" {
		peer, err := p2p.ParsePeerID(from)
		if err != nil {
			return err
		}
		conf.AllowPeer = func(id p2p.PeerID) bool { return id == peer }
	}
	in := pipe.Stdin()
	if offer == "-" {
		line, rest, err := firstLine()
		if err != nil {
			return err
		}
		offer, in = line, rest
	}
	if relayURL != "" {
		if conf.Relay, err = p2p.ParseRelay(relayURL); err != nil {
			return err
		}
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	conn, err := accept(ctx, endpoint, relayURL, offer)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "connected to", conn.RemoteID())
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
func accept(ctx context.Context, endpoint *p2p.Endpoint, relayURL, offer string) (*p2p.Conn, error) {
	if offer != "" {
		parsed, err := p2p.ParseOffer(offer)
		if err != nil {
			return nil, err
		}
		return endpoint.AcceptOffer(ctx, parsed)
	}
	if relayURL == "" {
		return nil, errors.New("no offer and no relay given: see -h")
	}
	fmt.Fprintf(os.Stderr, "The other side runs:\n\ndial -to %v FILE\n\n", endpoint.ID())
	return endpoint.Accept(ctx)
}

// firstLine reads the offer from the standard input. The returned reader has the rest.
func firstLine() (string, io.Reader, error) {
	r := bufio.NewReader(os.Stdin)
	line, err := r.ReadString('\n')
	if err != nil && line == "" {
		return "", nil, fmt.Errorf("read offer from stdin: %w", err)
	}
	return line, r, nil
}
