package p2p_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

// startRelay runs a relay on loopback, and returns its address, token and pin.
func startRelay(ctx context.Context) p2p.Relay {
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	go server.Run(ctx)
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		log.Fatal(err)
	}
	return p2p.Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin}
}

// The dialer knows the peer's ID. The offer goes through the relay's mailbox.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	relay := startRelay(ctx)

	bob, err := p2p.NewEndpoint(&p2p.Config{Relay: relay})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	go func() {
		conn, err := bob.Accept(ctx)
		if err != nil {
			log.Fatal(err)
		}
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(stream, stream)
		stream.Close()
	}()

	alice, err := p2p.NewEndpoint(&p2p.Config{Relay: relay})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	conn, err := alice.Dial(ctx, bob.ID(), nil)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(stream, "hello")
	stream.Close()
	answer, err := io.ReadAll(stream)
	fmt.Println(string(answer), err, conn.Path().Kind)
	// Output: hello <nil> relay
}

// An offer is a line of text. Here a Go channel delivers it.
func ExampleEndpoint_AcceptOffer() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	messenger := make(chan string, 1)

	// The offer names the relay. Here the relay is on this host, which must be allowed.
	bob, err := p2p.NewEndpoint(&p2p.Config{
		OfferRelays: func(relay netip.AddrPort) bool { return relay.Addr().IsLoopback() },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	accepted := make(chan *p2p.Conn)
	go func() {
		offer, err := p2p.ParseOffer(<-messenger)
		if err != nil {
			log.Fatal(err)
		}
		conn, err := bob.AcceptOffer(ctx, offer)
		if err != nil {
			log.Fatal(err)
		}
		accepted <- conn
	}()

	alice, err := p2p.NewEndpoint(&p2p.Config{Relay: startRelay(ctx)})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	conn, err := alice.Dial(ctx, p2p.PeerID{}, &p2p.DialConfig{
		Deliver: func(_ context.Context, offer p2p.Offer) error {
			messenger <- offer.String()
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.RemoteID() == bob.ID(), (<-accepted).RemoteID() == alice.ID())
	// Output: true true
}

func ExampleIdentityFromSeed() {
	seed := make([]byte, 32) // use a random one, and keep it secret
	identity, err := p2p.IdentityFromSeed(seed)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(identity.ID())
	// Output: gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq
}

func ExampleParseRelay() {
	relay, err := p2p.ParseRelay("quicway://secret@relay.example.org:4433")
	fmt.Println(relay.Addr, relay.Token, err)
	// Output: relay.example.org:4433 secret <nil>
}

func ExampleConn_PathEvents() {
	watch := func(ctx context.Context, conn *p2p.Conn) {
		for path := range conn.PathEvents(ctx) {
			fmt.Println(path.Kind, path.Remote, path.Why, path.Tried)
		}
	}
	_ = watch
}

func ExampleEndpoint_Dial() {
	dial := func(ctx context.Context, relay p2p.Relay, peer p2p.PeerID) error {
		endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: relay})
		if err != nil {
			return err
		}
		defer endpoint.Close()
		conn, err := endpoint.Dial(ctx, peer, nil) // through the relay's mailbox
		if err != nil {
			return err
		}
		stream, err := conn.OpenStreamSync(ctx) // conn embeds a *quic.Conn
		if err != nil {
			return err
		}
		_, err = io.WriteString(stream, "hello")
		return err
	}
	_ = dial
}

func ExampleEndpoint_Accept() {
	accept := func(ctx context.Context, relay p2p.Relay, identity *p2p.Identity) error {
		endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: relay, Identity: identity})
		if err != nil {
			return err
		}
		defer endpoint.Close()
		conn, err := endpoint.Accept(ctx)
		if err != nil {
			return err
		}
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return err
		}
		_, err = io.Copy(stream, stream)
		return err
	}
	_ = accept
}

func ExampleParseOffer() {
	answer := func(ctx context.Context, endpoint *p2p.Endpoint, text string) error {
		offer, err := p2p.ParseOffer(text)
		if err != nil {
			return err
		}
		conn, err := endpoint.AcceptOffer(ctx, offer)
		if err != nil {
			return err
		}
		return conn.CloseWithError(0, "")
	}
	_ = answer
}
