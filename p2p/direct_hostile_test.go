package p2p

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// spy records packets of a network.
type spy struct {
	mu      sync.Mutex
	packets []nettest.Packet
}

func (l *lab) spy(keep func(nettest.Packet) bool) *spy {
	s := &spy{}
	l.net.Filter(func(p nettest.Packet) bool {
		if keep(p) {
			s.mu.Lock()
			defer s.mu.Unlock()
			p.Data = bytes.Clone(p.Data)
			s.packets = append(s.packets, p)
		}
		return true
	})
	return s
}

func (s *spy) seen() []nettest.Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packets
}

func isProbe(p nettest.Packet) bool { return len(p.Data) > 0 && p.Data[0] == probeType }

// TestProbesCannotBeReplayed checks that probes that an attacker repeats from another
// address have no effect and get no answer.
func TestProbesCannotBeReplayed(t *testing.T) {
	runLab(t, func(l *lab) {
		probes := l.spy(isProbe)
		alice := l.public().peer(nil)
		a, b := l.connect(alice, l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(5 * time.Second)
		captured := probes.seen()
		if len(captured) == 0 {
			l.Fatal("no probes")
		}
		const attacker = "203.0.113.66:6"
		sent := l.spy(func(p nettest.Packet) bool { return p.To.String() == attacker })
		for _, p := range captured {
			p.From = netip.MustParseAddrPort(attacker)
			l.net.Inject(p)
		}
		time.Sleep(5 * time.Second)
		if n := len(sent.seen()); n != 0 {
			l.Errorf("%d packets to the attacker", n)
		}
		if a.link.direct.isProved(netip.MustParseAddrPort(attacker)) || b.link.direct.isProved(netip.MustParseAddrPort(attacker)) {
			l.Error("the attacker's address counts as the peer's")
		}
		l.exchange(a, b, 10_000)
	})
}

// TestProbesInFlightAreNoProof checks an attacker on the path that forwards the peer's
// probes from its own address before they arrive. It gets an answer and a ping for each,
// no larger than the probe, and no packet of the connection.
func TestProbesInFlightAreNoProof(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		victim := netip.MustParseAddrPort("203.0.113.66:6")
		var mu sync.Mutex
		in, out, quic := 0, 0, 0
		l.net.Filter(func(p nettest.Packet) bool {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case p.To == victim:
				out += len(p.Data)
				if !isProbe(p) {
					quic++
				}
			case p.From == victim:
			case p.From.Addr().String() == "198.51.100.2" && p.To.Addr().String() == "198.51.100.1":
				if isProbe(p) {
					in += len(p.Data)
					p.From, p.Data = victim, bytes.Clone(p.Data)
					go l.net.Inject(p)
				}
				return false
			}
			return true
		})
		l.exchange(a, b, 1<<20)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if quic != 0 {
			l.Errorf("%d packets of the connection went to somebody else", quic)
		}
		if in == 0 || out > 2*in {
			l.Errorf("%d bytes of probes, and %d bytes to somebody else", in, out)
		}
	})
}

// TestNamedAddressesAreBounded checks that a peer that names many addresses of others
// cannot have many probes sent to them.
func TestNamedAddressesAreBounded(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		sent := l.spy(func(p nettest.Packet) bool { return p.To.Addr().As4()[0] == 203 })
		for i := range 1000 {
			addr := netip.MustParseAddrPort(fmt.Sprintf("203.0.%d.%d:%d", i/250, 1+i%250, 1+i))
			n := uint64(1000 + i)
			for _, f := range []frame{
				addAddress(n, candidate{HostCandidate, addr}),
				numbered(framePunchMeNow, n),
				numbered(frameRemoveAddress, n-5),
			} {
				if err := a.signal.write(f); err != nil {
					l.Fatal(err)
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		bytes := 0
		for _, p := range sent.seen() {
			if !isProbe(p) {
				l.Fatalf("a packet of %d bytes that is no probe", len(p.Data))
			}
			bytes += len(p.Data)
		}
		if bytes == 0 || bytes > 50_000 {
			l.Errorf("%d bytes to others in a minute", bytes)
		}
		l.exchange(a, b, 10_000)
	})
}

// TestUselessAddressesAreNotProbed checks that loopback, multicast and similar addresses
// are not probed.
func TestUselessAddressesAreNotProbed(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		odd := l.spy(func(p nettest.Packet) bool { return isProbe(p) && p.To.Addr() != netip.MustParseAddr("198.51.100.1") })
		for i, addr := range []string{"127.0.0.1:1", "10.0.0.1:1", "224.0.0.1:1", "169.254.169.254:80", relayAddr} {
			if err := a.signal.write(addAddress(uint64(50+i), candidate{HostCandidate, netip.MustParseAddrPort(addr)})); err != nil {
				l.Fatal(err)
			}
		}
		if err := a.signal.write(numbered(framePunchMeNow, 9)); err != nil {
			l.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for _, p := range odd.seen() {
			if p.From.Addr().String() == "198.51.100.2" {
				l.Errorf("a probe to %v", p.To)
			}
		}
		l.exchange(a, b, 10_000)
	})
}

// TestMalformedAddressFrames checks that malformed frames close the connection with a
// reason.
func TestMalformedAddressFrames(t *testing.T) {
	for _, f := range []frame{{frameAddAddress, nil}, {frameAddAddress, []byte{1, 0, 1, 2}}, {frameRemoveAddress, nil}, {framePunchMeNow, nil}, {frameWish, nil}, {frameStandby, nil}, {frameStandbyReady, []byte{1}}, {frameTurned, nil}, {frameSpare, nil}} {
		runLab(t, func(l *lab) {
			a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
			if err := a.signal.write(f); err != nil {
				l.Fatal(err)
			}
			if err := l.closed(b); err == nil {
				l.Error("goes on")
			}
			l.closed(a)
		})
	}
}

// TestUnknownFramesAreSkipped checks that frames of unknown types are skipped.
func TestUnknownFramesAreSkipped(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		for kind := frameType(0x14); kind < 0x40; kind++ {
			if err := a.signal.write(frame{kind, []byte("more")}); err != nil {
				l.Fatal(err)
			}
		}
		l.until(Direct, a, b)
		l.exchange(a, b, 10_000)
	})
}

// TestPeerWantsRelay checks that the peer's policy RelayOnly is obeyed and reported.
func TestPeerWantsRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.host(nil))
		probes := l.spy(isProbe)
		time.Sleep(silentAfter + time.Second)
		if p := a.Path(); p.Kind != Relayed || p.Why != WhyPolicy {
			l.Errorf("path %+v", p)
		}
		if n := len(probes.seen()); n != 0 {
			l.Errorf("%d probes", n)
		}
		l.exchange(a, b, 1000)
	})
}

// TestSilentPeer checks that a connection stays on the relay if the peer names no
// addresses, as older versions do, and that this is reported once.
func TestSilentPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		a, _ := l.connect(l.host(nil), l.host(nil))
		time.Sleep(time.Second)
		c := newCarrier(a, newChecklist(), nil, nil)
		s := newSearch(a, c.list, nil, &c)
		s.policy, s.started = PreferDirect, time.Now()
		due := s.reportSilence(time.Now())
		if got := time.Until(due); got != silentAfter || a.Path().Why == WhySilent {
			l.Errorf("due in %v, path %+v", got, a.Path())
		}
		if due = s.reportSilence(due); !due.IsZero() || a.Path().Why != WhySilent {
			l.Errorf("due at %v, path %+v", due, a.Path())
		}
	})
}

// TestManyDeadAddresses checks that a peer is found if only one of its many addresses
// works, and that QUIC spends no connection IDs on the others.
func TestManyDeadAddresses(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		for i := range maxCandidates - 2 {
			addr := netip.MustParseAddrPort(fmt.Sprintf("203.0.113.%d:1", 1+i))
			if err := b.signal.write(addAddress(uint64(100+i), candidate{HostCandidate, addr})); err != nil {
				l.Fatal(err)
			}
		}
		dead := l.spy(func(p nettest.Packet) bool { return p.To.Addr().As4()[0] == 203 })
		l.until(Direct, a, b)
		time.Sleep(5 * time.Second)
		if n := len(dead.seen()); n > 5*(maxCandidates-2) {
			l.Errorf("%d probes to addresses where nobody is", n)
		}
		if n := a.Stats().IDs; n > 12 {
			l.Errorf("%d connection IDs were made", n)
		}
		l.exchange(a, b, 10_000)
	})
}

// TestPacketSizeOnDirectPath checks that packets on a direct path are not smaller than
// on the relay.
func TestPacketSizeOnDirectPath(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		time.Sleep(time.Second)
		large := l.spy(func(p nettest.Packet) bool { return len(p.Data) >= packetSize })
		l.exchange(a, b, 100_000)
		if len(large.seen()) < 2*100_000/packetSize-20 {
			l.Errorf("%d packets of %d bytes or more", len(large.seen()), packetSize)
		}
	})
}

// TestNamedAddressesAreForgotten checks that a peer cannot fill the memory by naming
// many addresses slowly.
func TestNamedAddressesAreForgotten(t *testing.T) {
	runLab(t, func(l *lab) {
		a, _ := l.connect(l.host(nil), l.host(nil))
		peer := newPeerAddresses(a, newChecklist())
		for i := range uint64(300) {
			addr := netip.MustParseAddrPort(fmt.Sprintf("203.0.113.%d:1", 1+i%250))
			if _, err := peer.add(addAddress(i, candidate{HostCandidate, addr}).payload, nil, time.Now()); err != nil {
				l.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		if len(peer.named) > maxCandidates || len(peer.list.pairs) > maxPairs {
			l.Errorf("%d addresses, %d pairs", len(peer.named), len(peer.list.pairs))
		}
	})
}

// TestProvedAddresses checks that the address in use is not forgotten when the peer
// proves many others.
func TestProvedAddresses(t *testing.T) {
	var d directLink
	used := netip.MustParseAddrPort("203.0.113.1:1")
	d.prove(used, used)
	for i := range uint16(100) {
		d.prove(netip.AddrPortFrom(used.Addr(), 2+i), used)
	}
	if !d.isProved(used) || !d.isProved(netip.AddrPortFrom(used.Addr(), 101)) || d.isProved(netip.AddrPortFrom(used.Addr(), 50)) {
		t.Errorf("knows %v", *d.proved.Load())
	}
	if n := len(*d.proved.Load()); n != maxProved {
		t.Errorf("%d addresses, want %d", n, maxProved)
	}
}
