package relay

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// TestLoopEnds checks that two relays that have each other's address as the address of a
// leg forward a packet, also one of a train, only until its hop limit is used up.
func TestLoopEnds(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) { testLoopEnds(t, addr) })
	}
}

func testLoopEnds(t *testing.T, addr string) {
	var relays [2]*Server
	for i := range relays {
		s, err := Listen(context.Background(), "udp", addr, &Config{Secret: testSecret, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- s.Run(context.Background()) }()
		defer func() {
			s.Close()
			<-served
		}()
		relays[i] = s
	}
	keys := [2]cid.Key{cid.NewKey(), cid.NewKey()}
	for i, s := range relays {
		putLoop(t, s, keys, relays[1-i].Addr())
	}
	attacker, err := udp.Listen(context.Background(), "udp", addr, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer attacker[0].Close()
	const hops, packets = 50, 10
	var train []byte
	for range packets {
		train = append(train, append(append([]byte{0x40}, keys[0].ID(cid.Peer, 0).Bytes()...), make([]byte, 1187)...)...)
	}
	m := udp.Message{Data: train, SegmentSize: 1200, Remote: relays[0].Addr(), HopLimit: hops}
	if err := attacker[0].Write(&m); err != nil {
		t.Fatal(err)
	}
	forwarded, ended := uint64(0), uint64(0)
	for deadline := time.Now().Add(30 * time.Second); ended < packets; time.Sleep(time.Millisecond) {
		a, b := relays[0].Stats(), relays[1].Stats()
		forwarded, ended = a.ForwardedPackets+b.ForwardedPackets, a.Dropped[DropHopLimit]+b.Dropped[DropHopLimit]
		if forwarded > packets*hops || time.Now().After(deadline) {
			t.Fatalf("%d packets were forwarded %d times, and %d have ended", packets, forwarded, ended)
		}
	}
	if forwarded != packets*(hops-1) {
		t.Errorf("%d packets with %d hops were forwarded %d times", packets, hops, forwarded)
	}
}

// putLoop makes a session whose legs have the same address.
func putLoop(t *testing.T, s *Server, keys [2]cid.Key, at netip.AddrPort) {
	t.Helper()
	ses, err := s.sessions.open(control.SessionID{1}, accountTag{}, uncounted)
	if err != nil {
		t.Fatal(err)
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for role := range ses.legs {
		putLegLocked(&ses.legs[role], keys[role], legAddr{remote: at})
	}
}
