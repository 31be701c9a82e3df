package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// TestRelays checks that an endpoint measures its relays, dials through the nearest one, and
// shows which ones drain or are dead.
func TestRelays(t *testing.T) {
	runFleet(t, 3, func(f *fleet) {
		for i, delay := range []time.Duration{50, 5, 20} {
			f.link(i, 0, nettest.Conditions{Delay: delay * time.Millisecond})
		}
		x, y := f.host(f.several), f.host(f.several)
		a, b := f.connect(x, y)
		f.turned(1, []PathReason{WhyEstablished}, a, b)
		f.exchange(a, b, 1000)
		want := func(order []int, err, draining int) {
			f.Helper()
			for i, s := range x.Relays() {
				n := order[i]
				rtt := []time.Duration{100, 10, 40}[n] * time.Millisecond
				if s.Relay != f.at(n) || (s.Err != nil) != (n == err) || s.Draining != (n == draining) || s.RTT < rtt || s.RTT > rtt+10*time.Millisecond || s.Since.IsZero() {
					f.Errorf("relay %d is %+v, want number %d", i, s, n)
				}
			}
		}
		time.Sleep(time.Second)
		want([]int{1, 2, 0}, -1, -1)
		ctx, cancel := context.WithCancel(context.Background())
		stopped := make(chan error, 1)
		go func() { stopped <- f.servers[1].Shutdown(ctx) }()
		time.Sleep(time.Second)
		want([]int{2, 0, 1}, -1, 1)
		f.turned(2, []PathReason{WhyRelayDrains, WhyPeerTurned}, a, b)
		cancel()
		<-stopped
		<-f.served[1]
		f.servers[1] = nil
		time.Sleep(time.Minute)
		want([]int{2, 0, 1}, 1, -1)
	})
}

func TestNearestFirst(t *testing.T) {
	const ms = time.Millisecond
	relay := func(name string, rtt time.Duration) RelayStatus {
		return RelayStatus{Relay: Relay{Addr: name}, RTT: rtt}
	}
	draining, failed := relay("d", ms), relay("e", ms)
	draining.Draining, failed.Err = true, errNoRelayLeft
	for name, test := range map[string]struct {
		all   []RelayStatus
		first string
		want  string
	}{
		"nearest":                  {[]RelayStatus{relay("a", 30*ms), relay("b", 20*ms)}, "", "b a"},
		"configured":               {[]RelayStatus{relay("a", 0), relay("b", 0)}, "", "a b"},
		"classes":                  {[]RelayStatus{failed, draining, relay("n", 0), relay("a", 90*ms)}, "", "a n d e"},
		"not 10 ms":                {[]RelayStatus{relay("a", 20*ms), relay("b", 10*ms)}, "a", "a b"},
		"not 25 %":                 {[]RelayStatus{relay("a", 100*ms), relay("b", 80*ms)}, "a", "a b"},
		"much nearer":              {[]RelayStatus{relay("a", 100*ms), relay("b", 70*ms)}, "a", "b a"},
		"the first one is gone":    {[]RelayStatus{relay("a", 20*ms), failed}, "e", "a e"},
		"the first one drains":     {[]RelayStatus{draining, relay("a", 20*ms)}, "d", "a d"},
		"no one":                   {nil, "a", ""},
		"the present one is third": {[]RelayStatus{relay("a", 20*ms), relay("b", 21*ms), relay("c", 22*ms)}, "c", "c a b"},
	} {
		var got []string
		for _, s := range nearestFirst(slices.Clone(test.all), relayKey{addr: test.first}) {
			got = append(got, s.Relay.Addr)
		}
		if g := strings.Join(got, " "); g != test.want {
			t.Errorf("%s: %s, want %s", name, g, test.want)
		}
	}
}

// TestRelayOrder checks that the application can decide, and that a standby relay is
// preferably in another zone.
func TestRelayOrder(t *testing.T) {
	runFleet(t, 3, func(f *fleet) {
		zones := func(c *Config) {
			f.several(c)
			c.Relay.Zone, c.Relays[0].Zone, c.Relays[1].Zone = "a", "b", "b"
			c.RelayOrder = func(all []RelayStatus) []RelayStatus {
				slices.SortFunc(all, func(a, b RelayStatus) int { return strings.Compare(b.Relay.Addr, a.Relay.Addr) })
				return all
			}
		}
		x, y := f.host(zones), f.host(nil)
		time.Sleep(time.Second)
		a, b := f.connect(x, y)
		f.turned(2, []PathReason{WhyEstablished}, a, b)
		f.standby(0)
		if n := f.servers[1].Stats().Legs; n != 0 {
			f.Errorf("%d legs at the relay of the same zone", n)
		}
	})
}

// TestMailboxOfSeveralRelays checks that an offer arrives although relays are dead, at either
// side or at both.
func TestMailboxOfSeveralRelays(t *testing.T) {
	for _, dead := range [][]int{{0}, {1}, {0, 1}} {
		t.Run(fmt.Sprint(dead), func(t *testing.T) {
			runFleet(t, 3, func(f *fleet) {
				x, y := f.host(f.several), f.host(f.several)
				for _, i := range dead {
					f.kill(i)
				}
				accepted := make(chan result, 1)
				go func() {
					c, err := y.Accept(f.Context())
					accepted <- result{c, err}
				}()
				a, err := x.Dial(f.Context(), y.ID(), nil)
				if err != nil {
					f.Fatal(err)
				}
				r := <-accepted
				if r.err != nil {
					f.Fatal(r.err)
				}
				f.exchange(a, r.conn, 1000)
			})
		})
	}
}

// TestAllRelaysDead checks the errors if no relay answers.
func TestAllRelaysDead(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x := f.host(f.several)
		f.kill(0)
		f.kill(1)
		if _, err := x.Dial(f.Context(), someID(t), nil); !errors.Is(err, ErrRelayUnreachable) {
			f.Errorf("dial: %v", err)
		}
		if _, err := x.Accept(f.Context()); !errors.Is(err, ErrRelayUnreachable) {
			f.Errorf("accept: %v", err)
		}
	})
}

// someID returns the ID of a peer that does not exist.
func someID(t *testing.T) PeerID {
	identity, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.ID()
}

// TestOutageDuringDial checks that an offer stays good while the dialer has no network: no other
// relay would help.
func TestOutageDuringDial(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		x, y := f.host(f.several), f.host(f.several)
		time.Sleep(time.Second)
		offer, dialed := f.offer(x, y.ID()) // a second offer would block
		f.net.Outage(5*time.Second, "198.51.100.1")
		time.Sleep(10 * time.Second)
		b, err := y.AcceptOffer(f.Context(), offer)
		if err != nil {
			f.Fatal(err)
		}
		r := <-dialed
		if r.err != nil {
			f.Fatal(r.err)
		}
		f.exchange(r.conn, b, 1000)
	})
}

// TestNamedRelays checks to which relays another relay may send this host.
func TestNamedRelays(t *testing.T) {
	own, pin, other := Relay{Addr: "own.test:1", Pin: someID(t), Token: "own"}, someID(t), someID(t)
	second := Relay{Addr: "second.test:1", Pin: pin}
	e, err := NewEndpoint(&Config{Relay: own, Relays: []Relay{second}}, nettest.New(1).Listen("198.51.100.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	from := Relay{Addr: "from.test:1", Pin: pin, Token: "from"} // has the key of the second relay
	stranger := Relay{Addr: "stranger.test:1", Pin: other}
	for name, test := range map[string]struct {
		from Relay
		to   control.Member
		want string // token; "" if it may not
	}{
		"same pin":            {from, control.Member{Addr: "b.test:1", Pin: pin.String()}, "from"},
		"no pin: the same":    {from, control.Member{Addr: "b.test:1"}, "from"},
		"other pin":           {from, control.Member{Addr: "b.test:1", Pin: other.String()}, ""},
		"configured":          {from, control.Member{Addr: own.Addr, Pin: own.Pin.String()}, "own"},
		"configured, bad pin": {from, control.Member{Addr: own.Addr, Pin: other.String()}, ""},
		"malformed pin":       {from, control.Member{Addr: "b.test:1", Pin: "x"}, ""},
		"malformed address":   {from, control.Member{Addr: "b.test", Pin: pin.String()}, ""},
		"long address":        {from, control.Member{Addr: strings.Repeat("b", 300) + ":1"}, ""},
		"nothing":             {from, control.Member{}, ""},
		"by a stranger":       {stranger, control.Member{Addr: "b.test:1"}, ""},
		"stranger to own":     {stranger, control.Member{Addr: own.Addr, Pin: own.Pin.String()}, "own"},
		"named without pin":   {Relay{Addr: "ca.test:1", Token: "ca"}, control.Member{Addr: "b.test:1"}, ""},
	} {
		refusal := &refusedError{control.Problem{Code: control.CodeElsewhere, Relay: test.to}}
		got, ok := e.elsewhere(test.from, fmt.Errorf("wrapped: %w", refusal))
		if ok != (test.want != "") || ok && (got.Token != test.want || got.Addr != test.to.Addr) {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	if _, ok := e.elsewhere(from, &refusedError{control.Problem{Code: control.CodeLimit, Relay: control.Member{Addr: "b.test:1"}}}); ok {
		t.Error("another refusal leads elsewhere")
	}
	if _, ok := e.elsewhere(from, &refusedError{control.Problem{Code: control.CodeElsewhere, Relay: control.Member{Addr: from.Addr}}}); ok {
		t.Error("a relay sends to itself")
	}
	e.conf.OfferRelays = func(netip.AddrPort) bool { return true }
	if _, ok := e.elsewhere(stranger, &refusedError{control.Problem{Code: control.CodeElsewhere, Relay: control.Member{Addr: "b.test:1"}}}); !ok {
		t.Error("a policy for offers' relays does not count")
	}
}

// TestDrainsToNamedRelay checks that a connection with a single relay turns to one that this
// relay names when it drains, and that a relay with another key is not used.
func TestDrainsToNamedRelay(t *testing.T) {
	runFleet(t, 3, func(f *fleet) {
		x, y := f.host(nil), f.host(nil)
		a, b := f.connect(x, y)
		f.exchange(a, b, 1000)
		client := a.link.leg().client
		client.drains(client.present(), []control.Member{
			{Addr: fleetAddrs[2], Pin: someID(t).String()},
			{Addr: fleetAddrs[1]},
		})
		f.standby(1)
		f.exchange(a, b, 1000)
		f.turned(1, []PathReason{WhyRelayDrains, WhyPeerTurned}, a, b)
		if n := f.servers[2].Stats().ControlPackets; n != 0 {
			f.Errorf("%d packets to a relay with another key", n)
		}
	})
}

// TestProposalsOfForeignRelays checks that an accepter connects to a relay that its peer
// proposes only where Config.OfferRelays allows it, and to few of them.
func TestProposalsOfForeignRelays(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		var asked atomic.Int32
		x, y := f.host(nil), f.host(func(c *Config) {
			c.OfferRelays = func(a netip.AddrPort) bool {
				asked.Add(1)
				return a.String() == relayAddr
			}
		})
		a, b := f.connect(x, y)
		f.exchange(a, b, 1000)
		for i := range 20 {
			r := f.at(1)
			r.Addr = fmt.Sprintf("192.0.2.2:%d", 4433+i)
			if err := a.signal.write(proposal{number: uint64(i + 1), relay: r}.frame(frameStandby)); err != nil {
				f.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		if n := f.servers[1].Stats().ControlPackets; n != 0 {
			f.Errorf("%d packets to a relay that is not allowed", n)
		}
		if n := asked.Load(); n < 2 || n > 2*proposalBurst {
			f.Errorf("%d addresses checked", n)
		}
		f.exchange(a, b, 1000)
		f.turns(0, a, b)
	})
}

func TestRelayList(t *testing.T) {
	pin := someID(t)
	document := fmt.Sprintf(`{"relays": [{"addr": "a.test:1", "pin": %q, "zone": "x", "more": 1}, {"addr": "b.test:2", "token": "t"}], "more": []}`, pin)
	mux := http.NewServeMux()
	mux.HandleFunc("/relays.json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, document) })
	mux.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/relays.json", http.StatusFound)
	})
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	relays, err := RelayList(server.URL+"/relays.json", server.Client())(t.Context())
	want := []Relay{{Addr: "a.test:1", Pin: pin, Zone: "x"}, {Addr: "b.test:2", Token: "t"}}
	if err != nil || !slices.Equal(relays, want) {
		t.Errorf("%+v, %v, want %+v", relays, err, want)
	}
	for _, url := range []string{server.URL + "/missing", server.URL + "/plain", "http" + server.URL[5:] + "/relays.json", "::"} {
		if relays, err := RelayList(url, server.Client())(t.Context()); err == nil {
			t.Errorf("%s: %+v", url, relays)
		}
	}
	if _, err := RelayList(server.URL+"/relays.json", nil)(t.Context()); err == nil {
		t.Error("a certificate that nobody has signed is trusted")
	}
	for _, text := range []string{
		"", "[]", `{"relays": [{}]}`, `{"relays": [{"addr": "a.test"}]}`, `{"relays": [{"addr": "a.test:1", "pin": "x"}]}`,
		`{"relays": [` + strings.Repeat(`{"addr": "a.test:1"},`, 16) + `{"addr": "a.test:1"}]}`,
		`{"relays": []}` + strings.Repeat(" ", maxRelayList),
	} {
		if relays, err := parseRelayList(strings.NewReader(text)); err == nil {
			t.Errorf("%.60s: %+v", text, relays)
		}
	}
}

func TestRelaySRV(t *testing.T) {
	like := Relay{Token: "t", Pin: someID(t), Zone: "z"}
	got := relaysOf([]*net.SRV{{Target: "a.test.", Port: 1, Priority: 1}, {Target: ".", Port: 2}, {Target: "b.test.", Port: 3, Priority: 2}}, like)
	if len(got) != 2 || got[0].Addr != "a.test:1" || got[1].Addr != "b.test:3" || got[1].Pin != like.Pin || got[1].Token != "t" {
		t.Errorf("%+v", got)
	}
	if _, err := RelaySRV("example.org", Relay{})(t.Context()); !errors.Is(err, ErrConfig) {
		t.Errorf("without a pin: %v", err)
	}
}

// TestRelaySource checks that the relays of a source are used, and that those of the last
// time stay if it fails.
func TestRelaySource(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		var calls atomic.Int32
		x := f.host(func(c *Config) {
			c.Relay = Relay{}
			c.RelaySource = func(context.Context) ([]Relay, error) {
				if calls.Add(1) == 2 {
					return nil, errors.New("no network")
				}
				return []Relay{f.at(1), f.at(0)}, nil
			}
		})
		a, b := f.connect(x, f.host(nil))
		f.exchange(a, b, 1000)
		_ = a.CloseWithError(0, "")
		<-b.Context().Done()
		time.Sleep(sourceEvery + listEvery)
		if all := x.Relays(); calls.Load() != 2 || len(all) != 2 || !all[0].usable() {
			f.Errorf("after %d calls: %+v", calls.Load(), all)
		}
	})
}

// TestRelayChaos checks that data arrives while relays are killed, revived, drained, cut and
// slow, as long as one of them can be reached by both sides.
func TestRelayChaos(t *testing.T) {
	for seed := range chaosSeeds(1) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			runFleet(t, 3, func(f *fleet) { f.chaos(rand.New(rand.NewPCG(seed, 5))) })
		})
	}
}

func (f *fleet) chaos(rng *rand.Rand) {
	a, b := f.pair()
	ctx, stop := context.WithCancel(context.Background())
	var got atomic.Int64
	flow := make(chan error, 1)
	go func() { flow <- drip(ctx, a, b, &got) }()
	for event := range 12 {
		i := rng.IntN(len(f.servers))
		what := rng.IntN(5)
		switch dead := f.servers[i] == nil; {
		case dead:
			f.revive(i)
		case f.others(i) == 0: // the last one stays
		case what == 0:
			f.kill(i)
		case what == 1:
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			_ = f.servers[i].Shutdown(ctx)
			cancel()
			<-f.served[i]
			f.servers[i] = nil
		case what == 2:
			f.cut(i, 1+rng.IntN(2))
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			f.mend(i)
		case what == 3:
			f.link(i, 0, nettest.Conditions{Delay: time.Duration(rng.IntN(200)) * time.Millisecond, Loss: 0.1})
		default:
			f.net.Outage(time.Duration(rng.IntN(3000)) * time.Millisecond)
		}
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Millisecond)
		before, deadline := got.Load(), time.Now().Add(progressBound)
		for got.Load() == before {
			f.alive(a, b)
			if time.Now().After(deadline) {
				f.Fatalf("nothing gets through after event %d, %d at relay %d: paths %v, %v", event, what, i, a.Path(), b.Path())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	stop()
	if err := <-flow; err != nil {
		f.Error(err)
	}
}

// others is the number of relays that work, without one.
func (f *fleet) others(i int) (n int) {
	for j, s := range f.servers {
		if s != nil && j != i {
			n++
		}
	}
	return n
}

// TestRoutesCostNothing checks that a packet through the relay allocates nothing for the
// routes, with and without a standby relay.
func TestRoutesCostNothing(t *testing.T) {
	l, addr := routedLink(2)
	if n := testing.AllocsPerRun(100, func() {
		if l.remote() != addr || !l.isRelay(addr) {
			t.Fatal("not the relay")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRoutes is the price of several relays for a packet that is sent: with a standby
// relay and without.
func BenchmarkRoutes(b *testing.B) {
	for _, standby := range []int{0, 1} {
		b.Run(fmt.Sprintf("standby=%d", standby), func(b *testing.B) {
			l, addr := routedLink(standby)
			for b.Loop() {
				if l.remote() != addr {
					b.Fatal("not the relay")
				}
			}
		})
	}
}

// routedLink makes a link with standby relays.
func routedLink(standby int) (*link, netip.AddrPort) {
	addr := netip.MustParseAddrPort(relayAddr)
	at := func(a netip.AddrPort) *leg {
		c := &relayClient{}
		c.at.Store(&a)
		return &leg{client: c}
	}
	l := &link{relay: addr}
	l.routes.Store(&routes{carrier: at(addr)})
	for i := range standby {
		l.addRoute(at(netip.MustParseAddrPort(fleetAddrs[i+1])))
	}
	return l, addr
}

// FuzzProposal checks that proposals are read as they were written.
func FuzzProposal(f *testing.F) {
	f.Add(proposal{number: 1, relay: Relay{Addr: relayAddr}, token: "t"}.frame(frameStandby).payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProposal(b)
		if err != nil {
			if !errors.Is(err, errSignal) {
				t.Fatal(err)
			}
			return
		}
		if again, err := parseProposal(p.frame(frameStandby).payload); err != nil || again.number != p.number || again.relay.Addr != p.relay.Addr || again.relay.Pin != p.relay.Pin || again.token != p.token {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

// TestRelaySendsElsewhere checks that a relay that drains sends its connections, and those who
// dial or wait through it, to the member that it names, though no peer has that one configured.
func TestRelaySendsElsewhere(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		f.unserve(f.servers[0], f.served[0])
		server, err := relay.New(&relay.Config{Secret: relaySecret, TTL: 20 * time.Second, Members: []relay.Member{{Addr: fleetAddrs[1], Zone: "b"}}}, f.net.Listen(relayAddr))
		if err != nil {
			f.Fatal(err)
		}
		f.servers[0], f.served[0] = server, make(chan error, 1)
		go func() { f.served[0] <- server.Run(context.Background()) }()
		x, y := f.host(nil), f.host(nil)
		a, b := f.connect(x, y)
		f.exchange(a, b, 1000)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stopped := make(chan error, 1)
		go func() { stopped <- server.Shutdown(ctx) }()
		f.standby(1)
		f.exchange(a, b, 1000)
		f.turned(1, []PathReason{WhyRelayDrains, WhyPeerTurned}, a, b)
		c, d := f.connect(x, y)
		f.turned(1, []PathReason{WhyEstablished}, c, d)
		f.exchange(c, d, 1000)
		if err := <-stopped; err != nil {
			f.Errorf("shutdown: %v", err)
		}
		<-f.served[0]
		f.servers[0] = nil
		f.alive(a, b, c, d)
	})
}
