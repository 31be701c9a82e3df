package p2p

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestPeersMeet checks that two peers with opposite orders of more relays than the accepter waits
// at meet through the mailbox, also if the accepter does not reach a relay that its ID chooses.
func TestPeersMeet(t *testing.T) {
	for name, lost := range map[string]bool{"all relays": false, "one is lost to the accepter": true} {
		t.Run(name, func(t *testing.T) { runFleet(t, 5, func(f *fleet) { f.meet(lost) }) })
	}
}

func (f *fleet) meet(lost bool) {
	for i := range f.servers {
		f.link(i, 1, nettest.Conditions{Delay: time.Duration(10+20*i) * time.Millisecond})
		f.link(i, 2, nettest.Conditions{Delay: time.Duration(10+20*(4-i)) * time.Millisecond})
	}
	x := f.host(f.several)
	identity, meet := f.meetsElsewhere(x)
	y := f.host(func(c *Config) { f.several(c); c.Identity = identity })
	time.Sleep(time.Second)
	if lost {
		f.cut(slices.Index(fleetAddrs, meet[0].Addr), 2)
	}
	accepted := f.accept(y, 1)
	f.dialed(x, y, accepted)
	if m := y.list.mailboxes(); len(m) != mailboxRelays || !lost && (!y.list.isMailbox(meet[0]) || !y.list.isMailbox(meet[1])) {
		f.Errorf("the accepter waits at %v, want %v", m, meet)
	}
}

// meetsElsewhere returns an identity that meets a host at other relays than the first one.
func (f *fleet) meetsElsewhere(x *host) (*Identity, []Relay) {
	for {
		identity, err := NewIdentity()
		if err != nil {
			f.Fatal(err)
		}
		meet := x.list.meeting(identity.ID(), x.list.order())
		if !slices.ContainsFunc(meet, f.at(0).same) {
			return identity, meet
		}
	}
}

// TestMeeting checks which relays an ID chooses.
func TestMeeting(t *testing.T) {
	conf := &Config{}
	for i := range 8 {
		conf.Relays = append(conf.Relays, Relay{Addr: fmt.Sprintf("r%d.test:1", i)})
	}
	e := &Endpoint{conf: conf}
	s := newRelayList(e)
	var order []RelayStatus
	for _, r := range conf.Relays {
		order = append(order, RelayStatus{Relay: r, RTT: time.Second})
	}
	used := make(map[string]int)
	for range 100 {
		id := someID(t)
		meet := s.meeting(id, order)
		reversed := slices.Clone(order)
		slices.Reverse(reversed)
		if again := s.meeting(id, reversed); !slices.EqualFunc(meet, again, Relay.same) || len(meet) != meetingRelays {
			t.Fatalf("%v, and in another order %v", meet, again)
		}
		for _, r := range meet {
			used[r.Addr]++
		}
		fewer := slices.DeleteFunc(slices.Clone(order), func(st RelayStatus) bool { return st.Relay.same(meet[0]) })
		if m := s.meeting(id, fewer); !m[0].same(meet[1]) {
			t.Errorf("without %v: %v, want %v first", meet[0], m, meet[1])
		}
		reversed[slices.IndexFunc(reversed, func(st RelayStatus) bool { return st.Relay.same(meet[0]) })].Err = ErrRelayUnreachable
		if m := s.meeting(id, reversed); !m[0].same(meet[1]) {
			t.Errorf("%v is dead: %v", meet[0], m)
		}
	}
	if len(used) != len(order) {
		t.Errorf("not all relays are used: %v", used)
	}
	if m := s.meeting(someID(t), order[:mailboxRelays]); m != nil {
		t.Errorf("of %d relays: %v", mailboxRelays, m)
	}
}
