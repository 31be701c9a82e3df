package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

const otherAddr = "192.0.2.2:4433"

// problem makes a request that is refused, and returns why.
func (p *peer) problem(method, path, auth string, body any) (int, control.Problem) {
	p.lab.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.lab.Fatal(err)
	}
	var problem control.Problem
	status, reply := p.do(method, path, auth, b)
	if err := json.Unmarshal(reply, &problem); err != nil {
		p.lab.Fatalf("%s %s: status %d, %q: %v", method, path, status, reply, err)
	}
	return status, problem
}

// openProblem asks for a new session, which is refused.
func (p *peer) openProblem(id control.SessionID) (int, control.Problem) {
	p.lab.Helper()
	return p.problem("POST", fmt.Sprintf(control.LegsPath, id), control.Bearer+p.lab.server.Token(), control.Register{Key: cid.NewKey()})
}

// TestRelaysAreListed checks what a relay tells of itself and of others, that the list can be
// replaced, and that a list that is not valid changes nothing.
func TestRelaysAreListed(t *testing.T) {
	first := []Member{{Name: "b", Addr: otherAddr, Zone: "east"}, {Name: "a", Addr: "192.0.2.99:1"}}
	runLab(t, &Config{Name: "a", Advertise: "a.example:4433", Zone: "west", Members: first}, func(l *lab) {
		p := l.peer()
		listed := func() control.Relays {
			status, body := p.do("GET", control.RelaysPath, "", nil)
			wantStatus(l, "list", status, http.StatusOK)
			var relays control.Relays
			if err := control.Decode(strings.NewReader(string(body)), &relays); err != nil {
				l.Fatal(err)
			}
			return relays
		}
		self := control.Member{Addr: "a.example:4433", Zone: "west"}
		if got := listed().Relays; len(got) != 2 || got[0] != self || got[1] != (control.Member{Addr: otherAddr, Zone: "east"}) {
			l.Errorf("got %+v", got)
		}
		if got := p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token()).Relay; got != self {
			l.Errorf("registered at %+v, want %+v", got, self)
		}
		many := make([]Member, control.MaxMembers)
		long := make([]Member, control.MaxMembers-1)
		for i := range many {
			many[i].Addr = fmt.Sprintf("192.0.2.%d:4433", i+1)
		}
		for i := range long {
			long[i].Addr = strings.Repeat("x", maxHost) + ":4433"
		}
		for name, list := range map[string][]Member{
			"too many":     many,
			"too large":    long,
			"no port":      {{Addr: "relay.example"}},
			"no host":      {{Addr: ":4433"}},
			"port 0":       {{Addr: "relay.example:0"}},
			"a long host":  {{Addr: strings.Repeat("x", maxHost+1) + ":1"}},
			"a long name":  {{Addr: otherAddr, Name: strings.Repeat("x", maxName+1)}},
			"a long zone":  {{Addr: otherAddr, Zone: strings.Repeat("x", maxName+1)}},
			"no valid pin": {{Addr: otherAddr, Pin: "x"}},
		} {
			if err := l.server.SetMembers(list); !errors.Is(err, ErrConfig) {
				l.Errorf("%s: %v, want %v", name, err, ErrConfig)
			}
		}
		if n := len(listed().Relays); n != 2 {
			l.Errorf("%d relays after lists that are not valid, want 2", n)
		}
		if err := l.server.SetMembers(many[:control.MaxMembers-1]); err != nil {
			l.Error(err)
		}
		if n := len(listed().Relays); n != control.MaxMembers {
			l.Errorf("%d relays, want %d", n, control.MaxMembers)
		}
		if err := l.server.SetMembers(nil); err != nil || len(listed().Relays) != 1 {
			l.Errorf("%v, %+v", err, listed())
		}
	})
}

// TestElsewhere checks that a relay that is full or drains sends new sessions to another one,
// both ends of a session to the same, near ones first, and sessions that it has nowhere.
func TestElsewhere(t *testing.T) {
	near := []Member{{Addr: "192.0.2.11:1", Zone: "z"}, {Addr: "192.0.2.12:1", Zone: "z"}, {Addr: "192.0.2.13:1", Zone: "z"}}
	conf := &Config{Zone: "z", MaxSessions: 2, Members: append(near, Member{Addr: "192.0.2.14:1", Zone: "far"})}
	runLab(t, conf, func(l *lab) {
		alice, bob := l.pair()
		p := l.peer()
		p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
		check := func(why error) {
			sent := make(map[string]bool)
			for range 40 {
				id := control.NewSessionID()
				status, problem := p.openProblem(id)
				wantStatus(l, "open", status, http.StatusServiceUnavailable)
				if problem.Code != control.CodeElsewhere || problem.Relay.Zone != "z" || !strings.HasPrefix(problem.Message, why.Error()) {
					l.Fatalf("got %+v", problem)
				}
				if _, again := p.openProblem(id); again.Relay != problem.Relay {
					l.Fatalf("sent to %+v and to %+v", problem.Relay, again.Relay)
				}
				sent[problem.Relay.Addr] = true
			}
			if len(sent) != len(near) {
				l.Errorf("sent to %v", sent)
			}
			wantStatus(l, "refresh", alice.refresh(), http.StatusOK)
		}
		check(errTooManySessions)
		status, _ := p.openProblem(control.NewSessionID())
		wantStatus(l, "open", status, http.StatusServiceUnavailable)
		wantStatus(l, "no token", func() int {
			status, _ := p.register(control.NewSessionID(), control.Register{Key: cid.NewKey()}, "x")
			return status
		}(), http.StatusUnauthorized)

		l.server.members.drain()
		check(errDraining)
		offer := fmt.Sprintf(control.OffersPath+"?%s=", bob.name(), control.SessionParameter)
		if _, problem := p.problem("PUT", offer+control.NewSessionID().String(), control.Bearer+l.server.Token(), "offer"); problem.Code != control.CodeElsewhere {
			l.Errorf("an offer to a session that is elsewhere: %+v", problem)
		}
		status, _ = p.do("PUT", offer+alice.session.String(), control.Bearer+l.server.Token(), []byte("offer"))
		wantStatus(l, "an offer to a session that is here", status, http.StatusNoContent)

		if s := l.server.Stats(); s.Elsewhere != 162 || !s.Draining {
			l.Errorf("%d requests sent elsewhere, want 162; draining %v", s.Elsewhere, s.Draining)
		}
		if err := l.server.SetMembers(nil); err != nil {
			l.Fatal(err)
		}
		if status, problem := p.openProblem(control.NewSessionID()); status != http.StatusServiceUnavailable || problem.Code != control.CodeShutdown {
			l.Errorf("status %d, %+v", status, problem)
		}
	})
}

// TestMemberWeights checks that few sessions are sent to another relay when one is added.
func TestMemberWeights(t *testing.T) {
	m := newMembers(&Config{Zone: "z"})
	refused := func(id control.SessionID) string {
		var e *elsewhereError
		if !errors.As(m.elsewhere(id, errDraining), &e) {
			t.Fatal("not sent elsewhere")
		}
		return e.relay.Addr
	}
	var list []Member
	for i := range 4 {
		list = append(list, Member{Addr: fmt.Sprintf("192.0.2.%d:1", i+1)})
	}
	before, moved := make(map[control.SessionID]string), 0
	if err := m.set(list[:3]); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		id := control.SessionID{byte(i), byte(i >> 8)}
		before[id] = refused(id)
	}
	if err := m.set(list); err != nil {
		t.Fatal(err)
	}
	for id, at := range before {
		if now := refused(id); now != at {
			moved++
			if now != list[3].Addr {
				t.Fatalf("moved from %s to %s", at, now)
			}
		}
	}
	if moved < 150 || moved > 350 {
		t.Errorf("%d of 1000 sessions moved, want about a quarter", moved)
	}
}

// TestMembersReset checks that nobody can make a relay end the connections of another one with
// the same secret, as it would be possible if both had the same name (RFC 9000 §21.11).
func TestMembersReset(t *testing.T) {
	for _, test := range []struct {
		a, b string
		ends bool
	}{{"", "", false}, {"a", "b", false}, {"a", "", false}, {"a", "a", true}} {
		t.Run(test.a+" "+test.b, func(t *testing.T) {
			runLab(t, &Config{Name: test.a}, func(l *lab) {
				l.another(otherAddr, &Config{Name: test.b})
				alice := l.peer()
				public := alice.conn.Public()
				here, other := netip.MustParseAddrPort(relayAddr), netip.MustParseAddrPort(otherAddr)
				var spent, reset atomic.Pointer[[]byte]
				l.net.Filter(func(p nettest.Packet) bool {
					switch {
					case p.To == here && !wire.IsLong(p.Data[0]):
						data := bytes.Clone(p.Data)
						spent.Store(&data)
					case p.From == other && p.To == public:
						data := bytes.Clone(p.Data)
						reset.Store(&data)
						return false
					}
					return true
				})
				alice.do("GET", control.RelaysPath, "", nil)
				forged := append(bytes.Clone((*spent.Load())[:1+cid.Len]), make([]byte, 200)...)
				l.net.Inject(nettest.Packet{From: public, To: other, Data: forged})
				time.Sleep(time.Second)
				if reset.Load() == nil {
					l.Fatal("the other relay has sent no reset")
				}
				l.net.Inject(nettest.Packet{From: here, To: public, Data: *reset.Load()})
				time.Sleep(time.Second)
				synctest.Wait()
				if ended := alice.quic.Context().Err() != nil; ended != test.ends {
					l.Errorf("connection ended: %v, want %v", ended, test.ends)
				}
			})
		})
	}
}

// TestMemberLeg checks that a leg has the address of another relay only if it is that relay
// that has connected, that no stranger may send in its place, and that not both legs of a
// session have such addresses.
func TestMemberLeg(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, member, thief := l.peer(), l.peer(), l.peer()
		secrets, err := deriveSecrets(testSecret)
		if err != nil {
			l.Fatal(err)
		}
		if member.cert, err = pki.SelfSigned(secrets.identity); err != nil {
			l.Fatal(err)
		}
		second := l.peer()
		second.cert = member.cert
		member.goTo(relayAddr)
		second.goTo(relayAddr)
		err = l.server.SetMembers([]Member{{Addr: member.conn.Public().String()}, {Addr: thief.conn.Public().String()}, {Addr: second.conn.Public().String()}})
		if err != nil {
			l.Fatal(err)
		}
		status, _ := thief.register(control.NewSessionID(), control.Register{Key: thief.key}, l.server.Token())
		wantStatus(l, "a client at the address of another relay", status, http.StatusForbidden)

		session := control.NewSessionID()
		join := member.mustRegister(session, control.Register{Key: member.key}, l.server.Token()).Join
		status, _ = second.register(session, control.Register{Role: control.Accepter, Key: second.key}, join)
		wantStatus(l, "both legs at other relays", status, http.StatusForbidden)
		alice.mustRegister(session, control.Register{Role: control.Accepter, Key: alice.key}, join)
		packet := alice.packet(0, "by the other relay")
		member.send(packet)
		alice.want(packet)
		thief.send(packet)
		alice.want()
		l.dropped(DropWrongSource, 1)
	})
}

// TestMemberNames checks that the addresses of members are looked up, also again, and that
// one that cannot be looked up any more stays what it was.
func TestMemberNames(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		m := newMembers((&Config{}).withDefaults())
		var mu sync.Mutex // guards the following
		addr, fail := netip.MustParseAddr("192.0.2.7"), false
		m.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if fail || host != "relay.example" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{addr}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go m.watch(ctx)
		at := func(a string) bool {
			synctest.Wait()
			_, ok := m.at(netip.MustParseAddrPort(a))
			return ok
		}
		list := []Member{{Addr: "relay.example:4433"}, {Addr: "gone.example:4433"}, {Addr: "[::ffff:192.0.2.9]:1"}}
		if err := m.set(list); err != nil {
			t.Fatal(err)
		}
		if !at("192.0.2.7:4433") || !at("192.0.2.9:1") || at("192.0.2.7:1") {
			t.Errorf("known: %v", m.list.Load().at)
		}
		mu.Lock()
		addr = netip.MustParseAddr("192.0.2.8")
		mu.Unlock()
		time.Sleep(lookupPeriod)
		if !at("192.0.2.8:4433") || at("192.0.2.7:4433") {
			t.Errorf("known after a change: %v", m.list.Load().at)
		}
		mu.Lock()
		fail = true
		mu.Unlock()
		time.Sleep(lookupPeriod)
		if !at("192.0.2.8:4433") {
			t.Error("forgotten when the look-up has failed")
		}
		if err := m.set(list[1:]); err != nil || at("192.0.2.8:4433") {
			t.Errorf("known although it is no member any more: %v, %v", m.list.Load().at, err)
		}
	})
}
