// Dial connects to a peer, sends it a file or the standard input, and writes what the peer
// sends to the standard output.
//
//	go run ./examples/dial -relay quicway://TOKEN@HOST:PORT?pin=PIN FILE
//
// It prints the offer, which the peer passes to accept. With -to the offer goes through the
// relay's mailbox.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mdp/qrterminal/v3"

	"github.com/quicway/quicway/examples/internal/pipe"
	"github.com/quicway/quicway/p2p"
)

func main() {
	relay := flag.String("relay", os.Getenv("QUICWAY_RELAY"), "`URL` of the relay (default $QUICWAY_RELAY)")
	to := flag.String("to", "", "`ID` of the peer; the offer goes through the relay's mailbox (default: print the offer)")
	qr := flag.Bool("qr", false, "also print the offer as a QR code")
	var policy pipe.Policy
	policy.Flags()
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: dial [flags] [FILE]")
		flag.PrintDefaults()
	}
	flag.Parse()
	pipe.Fail("dial", run(*relay, *to, flag.Arg(0), *qr, &policy))
}

func run(relayURL, to, file string, qr bool, policy *pipe.Policy) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	relay, err := p2p.ParseRelay(relayURL)
	if err != nil {
		return err
	}
	in, size, err := open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	conf := &p2p.Config{Relay: relay}
	if conf.Policy, err = policy.Path(); err != nil {
		return err
	}
	endpoint, err := p2p.NewEndpoint(conf)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	conn, err := dial(ctx, endpoint, to, qr)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "connected to", conn.RemoteID())
	side := pipe.Side{Conn: conn, In: in, Out: os.Stdout, Size: size}
	res, err := side.Run(ctx)
	if err != nil {
		return err
	}
	res.Print(conn)
	return nil
}

func dial(ctx context.Context, endpoint *p2p.Endpoint, to string, qr bool) (*p2p.Conn, error) {
	if to != "" {
		peer, err := p2p.ParsePeerID(to)
		if err != nil {
			return nil, err
		}
		return endpoint.Dial(ctx, peer, nil)
	}
	return endpoint.Dial(ctx, p2p.PeerID{}, &p2p.DialConfig{Deliver: func(_ context.Context, offer p2p.Offer) error {
		fmt.Fprintf(os.Stderr, "The other side runs, before %v:\n\n", offer.Expires().Format("15:04:05"))
		fmt.Fprintf(os.Stderr, "accept %v\n\n", offer)
		if qr {
			qrterminal.GenerateWithConfig(offer.String(), qrterminal.Config{
				Level:      qrterminal.L,
				Writer:     os.Stderr,
				HalfBlocks: true,
				BlackChar:  qrterminal.BLACK_BLACK, WhiteBlackChar: qrterminal.WHITE_BLACK,
				WhiteChar: qrterminal.WHITE_WHITE, BlackWhiteChar: qrterminal.BLACK_WHITE,
				QuietZone: 1,
			})
		}
		return nil
	}})
}

// open opens a file and returns its size. Without a file it returns the standard input and -1.
func open(file string) (io.ReadCloser, int64, error) {
	if file == "" || file == "-" {
		return os.Stdin, -1, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}
