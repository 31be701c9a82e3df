package main

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/quicway/quicway/internal/test/livetest"
	"github.com/quicway/quicway/internal/test/nettest"
)

// Addresses. The sender's flows have ports from 2000 on, and the sink's from 3000 on.
//
//	sender 10.2.0.2 — eth0 relay eth1 — sink 10.3.0.2
const (
	senderAddr, relayToSender = "10.2.0.2", "10.2.0.1"
	sinkAddr, relayToSink     = "10.3.0.2", "10.3.0.1"
	relayPort                 = 4433
	senderPort, sinkPort      = 2000, 3000
)

// bed is a network with a relay, for one flood.
type bed struct {
	nettest.Program
	*builder
	shape *shape
	whole bool // trains cross the network whole

	sender, relay, sink *nettest.Host
	counter             *livetest.Sink
	flows               []*flow
	pids                []int // of the relay
	said                said  // complete at the end
}

// said is what the programs have written to standard error, several of them at the same time.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(bytes.TrimSpace(s.text.Bytes()))
}

// build makes and connects the hosts.
func (b *bed) build() {
	b.sender, b.relay, b.sink = nettest.NewHost(b), nettest.NewHost(b), nettest.NewHost(b)
	nettest.Cable(b.relay, "eth0", []string{relayToSender + "/24"}, b.sender, "eth0", []string{senderAddr + "/24"})
	nettest.Cable(b.relay, "eth1", []string{relayToSink + "/24"}, b.sink, "eth0", []string{sinkAddr + "/24"})
	b.sender.Route("10.3.0.0/24", relayToSender)
	b.sink.Route("10.2.0.0/24", relayToSink)
	for _, iface := range []string{"eth0", "eth1"} {
		b.relay.Sysctl("net/ipv4/conf/"+iface+"/forwarding", "1")
		if b.whole {
			b.relay.SendOffloads(iface)
		}
	}
	if b.whole {
		b.sender.SendOffloads("eth0")
		b.sink.SendOffloads("eth0")
	} else {
		b.relay.ReceiveOffloads("eth0")
	}
	b.counter = livetest.NewSink(b)
}

// arrive counts and drops what arrives at the sink from now on.
func (b *bed) arrive() {
	if b.whole {
		b.Cleanup(b.counter.Trains(b, b.sink, "eth0"))
	} else {
		b.Cleanup(b.counter.Frames(b, b.sink, "eth0"))
	}
}

// explain adds to an error what the programs have said.
func (b *bed) explain(err *error) {
	if text := b.said.String(); *err != nil && text != "" {
		*err = fmt.Errorf("%w; it says: %s", *err, text)
	}
}
