package p2p_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

// startRelay runs a relay on loopback until ctx is done, and returns what peers need.
func startRelay(ctx context.Context) p2p.Relay {
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := server.Run(ctx); err != nil {
			log.Fatal(err)
		}
	}()
	at, err := p2p.ParseRelay(server.URL(""))
	if err != nil {
		log.Fatal(err)
	}
	return at
}

// startEcho runs a peer until ctx is done, which sends back the first stream of each
// connection, and returns its ID.
func startEcho(ctx context.Context, relay p2p.Relay) p2p.PeerID {
	endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: relay})
	if err != nil {
		log.Fatal(err)
	}
	context.AfterFunc(ctx, func() { endpoint.Close() })
	go func() {
		for {
			conn, err := endpoint.Accept(ctx)
			if err != nil {
				return // ctx is done
			}
			go func() {
				if stream, err := conn.AcceptStream(ctx); err == nil {
					io.Copy(stream, stream)
					stream.Close()
				}
			}()
		}
	}()
	return endpoint.ID()
}

// Frankfurt is the nearest of three relays. Paris and New York take its place if it dies.
func ExampleEndpoint_Relays() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	frankfurt, paris, newYork := startRelay(ctx), startRelay(ctx), startRelay(ctx)

	endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: frankfurt, Relays: []p2p.Relay{paris, newYork}})
	if err != nil {
		log.Fatal(err)
	}
	defer endpoint.Close()
	fmt.Println("relays:", len(endpoint.Relays()))
	// Output: relays: 3
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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	relay := startRelay(ctx)
	endpoint, err := p2p.NewEndpoint(&p2p.Config{Relay: relay, Policy: p2p.RelayOnly})
	if err != nil {
		log.Fatal(err)
	}
	defer endpoint.Close()
	conn, err := endpoint.Dial(ctx, startEcho(ctx, relay), nil)
	if err != nil {
		log.Fatal(err)
	}
	conn.CloseWithError(0, "") // the loop ends when the connection does
	for path := range conn.PathEvents(ctx) {
		fmt.Println(path.Kind, path.Why)
	}
	// Output: relay established
}

func ExampleEndpoint_Dial() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	relay := startRelay(ctx)

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
	fmt.Println(dial(ctx, relay, startEcho(ctx, relay)))
	// Output: <nil>
}

func ExampleEndpoint_Accept() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	relay := startRelay(ctx)
	identity, err := p2p.NewIdentity() // or p2p.LoadOrCreateIdentity
	if err != nil {
		log.Fatal(err)
	}

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
	accepted := make(chan error, 1)
	go func() { accepted <- accept(ctx, relay, identity) }()

	alice, err := p2p.NewEndpoint(&p2p.Config{Relay: relay})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	conn, err := alice.Dial(ctx, identity.ID(), nil)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(stream, "hello")
	stream.Close()
	fmt.Println(<-accepted)
	// Output: <nil>
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

	endpoint, err := p2p.NewEndpoint(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer endpoint.Close()
	fmt.Println(answer(context.Background(), endpoint, "hello"))
	// Output: p2p: malformed offer: it does not begin with "quicway1."
}

// tempFolder makes a folder, and returns a function that removes it.
func tempFolder() (folder string, remove func()) {
	folder, err := os.MkdirTemp("", "quicway")
	if err != nil {
		log.Fatal(err)
	}
	return folder, func() { os.RemoveAll(folder) }
}

// The PeerID is the same each time the program runs.
func ExampleLoadOrCreateIdentity() {
	folder, remove := tempFolder()
	defer remove()
	file := filepath.Join(folder, "bob.key")

	identity, err := p2p.LoadOrCreateIdentity(file)
	if err != nil {
		log.Fatal(err)
	}
	endpoint, err := p2p.NewEndpoint(&p2p.Config{Identity: identity})
	if err != nil {
		log.Fatal(err)
	}
	defer endpoint.Close()

	again, err := p2p.LoadOrCreateIdentity(file)
	fmt.Println(again.ID() == endpoint.ID(), err)
	// Output: true <nil>
}

func ExampleParseIdentity() {
	identity, err := p2p.ParseIdentity([]byte(`-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIDsJ2nXX7c2a1XAGvvHNAW5qGcwT+1Db3+xKiubVZEbT
-----END PRIVATE KEY-----`)) // from openssl genpkey -algorithm ed25519
	fmt.Println(identity, err)
	// Output: zwe4uyvi3z6ezdpn77mfh4x5eackwrxecnaliirq7ctcgbcgnwoq <nil>
}

// A file like ssh's known_hosts gives peers names.
func ExampleKnownPeers() {
	folder, remove := tempFolder()
	defer remove()
	file := filepath.Join(folder, "known_peers")
	bob, err := p2p.ParsePeerID("gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq")
	if err != nil {
		log.Fatal(err)
	}

	if err := p2p.AddKnownPeer(file, p2p.KnownPeer{Name: "bob", ID: bob, Comment: "the laptop"}); err != nil {
		log.Fatal(err)
	}
	known, err := p2p.LoadKnownPeers(file)
	if err != nil {
		log.Fatal(err)
	}
	id, err := known.Find("bob") // or his ID
	fmt.Println(id == bob, err, known.NameOf(bob))
	_, err = known.Find("alice")
	fmt.Println(errors.Is(err, p2p.ErrUnknownPeer))
	// Output:
	// true <nil> bob
	// true
}

// A TLS server with the certificate of an identity has the identity's ID.
func ExamplePeerIDOf() {
	identity, err := p2p.NewIdentity()
	if err != nil {
		log.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{identity.Certificate()}}
	fmt.Println(p2p.PeerIDOf(conf.Certificates[0].Leaf) == identity.ID())
	// Output: true
}

// startPeers runs a relay and two endpoints on loopback.
func startPeers(ctx context.Context) (alice, bob *p2p.Endpoint) {
	conf := &p2p.Config{Relay: startRelay(ctx)}
	alice, err := p2p.NewEndpoint(conf)
	if err != nil {
		log.Fatal(err)
	}
	bob, err = p2p.NewEndpoint(conf)
	if err != nil {
		log.Fatal(err)
	}
	return alice, bob
}

// Bob is a server of net/http, and Alice's client reaches him by his ID.
func ExampleEndpoint_Listener() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, bob := startPeers(ctx)
	defer alice.Close()
	defer bob.Close()

	server := &http.Server{ConnContext: p2p.ConnContext} // for PeerFromContext
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := p2p.PeerFromContext(r.Context())
		fmt.Fprint(w, "hello ", peer == alice.ID(), r.RemoteAddr == peer.String())
	})
	go server.Serve(bob.Listener())

	client := &http.Client{Transport: &http.Transport{DialContext: alice.DialContext}}
	resp, err := client.Get("http://" + bob.ID().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello true true <nil>
}

// A client and a server of gRPC.
func ExampleEndpoint_DialContext() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, bob := startPeers(ctx)
	defer alice.Close()
	defer bob.Close()

	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(bob.Listener())

	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return alice.DialContext(ctx, "tcp", address)
	}
	client, err := grpc.NewClient("passthrough:///"+bob.ID().String(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials())) // QUIC encrypts
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	// Output: SERVING <nil>
}

// A WebSocket over a stream. Alice and Bob share one connection for all of them.
func ExampleStreamConn() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, bob := startPeers(ctx)
	defer alice.Close()
	defer bob.Close()

	go http.Serve(bob.Listener(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := websocket.Accept(w, r, nil)
		if err != nil {
			log.Fatal(err)
		}
		socket.Write(r.Context(), websocket.MessageText, []byte("hello"))
	}))

	client := &http.Client{Transport: &http.Transport{DialContext: alice.DialContext}}
	socket, _, err := websocket.Dial(ctx, "ws://"+bob.ID().String(), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		log.Fatal(err)
	}
	defer socket.CloseNow()
	_, message, err := socket.Read(ctx)
	fmt.Println(string(message), err)
	// Output: hello <nil>
}

// HTTP/3 has the whole connection, without another layer of streams.
func ExamplePeerHandler() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, bob := startPeers(ctx)
	defer alice.Close()
	defer bob.Close()

	server := &http3.Server{Handler: p2p.PeerHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello ", r.RemoteAddr == alice.ID().String())
	}))}
	go func() {
		for {
			conn, err := bob.Accept(ctx)
			if err != nil {
				return
			}
			go server.ServeQUICConn(conn.Conn)
		}
	}()

	transport := &http3.Transport{
		Dial: func(ctx context.Context, address string, _ *tls.Config, _ *quic.Config) (*quic.Conn, error) {
			host, _, _ := net.SplitHostPort(address)
			peer, err := p2p.ParsePeerID(host)
			if err != nil {
				return nil, err
			}
			conn, err := alice.Dial(ctx, peer, nil)
			if err != nil {
				return nil, err
			}
			return conn.Conn, nil
		},
	}
	defer transport.Close()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + bob.ID().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello true <nil>
}

// Either side of a connection may listen, here the one that has dialed it.
func ExampleConn_Listener() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, bob := startPeers(ctx)
	defer alice.Close()
	defer bob.Close()

	go func() {
		conn, err := alice.Dial(ctx, bob.ID(), nil)
		if err != nil {
			log.Fatal(err)
		}
		stream, err := conn.Listener().Accept()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprint(stream, "220 alice is ready") // Bob has written nothing
		stream.Close()
	}()

	conn, err := bob.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}
	stream, err := conn.DialContext(ctx, "tcp", "")
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	greeting, err := io.ReadAll(stream)
	fmt.Println(string(greeting), err)
	// Output: 220 alice is ready <nil>
}
