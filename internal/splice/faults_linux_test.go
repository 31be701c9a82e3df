package splice

import (
	"maps"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/tcptest"
)

// TestFaults puts faults of a rewrite into the entries of pairs. A counter of an end has to show each
// of them, also those with which all bytes arrive, and none may show without a fault: the counters
// would find such faults in the other tests.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		fault   func(client, upstream *spliceHalf)
		counter string // that shows the fault
		at      string // the host whose counter it is
		dies    bool   // the bytes do not arrive
	}{
		{"none", func(_, _ *spliceHalf) {}, "", "", false},
		{"timestamps of the client", func(client, _ *spliceHalf) { client.TsAdd -= 1 << 24 }, "TcpExtPAWSEstab", "server", true},
		{"timestamps of the server", func(_, upstream *spliceHalf) { upstream.TsAdd -= 1 << 24 }, "TcpExtPAWSEstab", "client", true},
		{"acknowledgements", func(_, upstream *spliceHalf) { upstream.SeqAdd += 1 << 30 }, "TcpExtTCPChallengeACK", "server", true},
		{"scale of the window", func(client, _ *spliceHalf) { client.InScale += 6 }, "TcpExtBeyondWindow", "client", false},
		{"congestion marks", func(client, upstream *spliceHalf) {
			client.Flags &^= halfNoECN
			upstream.Flags &^= halfNoECN
		}, "IpExtInCEPkts", "server", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newLineLab(t, false, nil)
			r.client.Sysctl("net/ipv4/tcp_ecn", "1") // the connection to the server has no ECN
			r.client.Sysctl("net/ipv4/tcp_rmem", "4096 65536 65536")
			r.set(nettest.LineConditions{Delay: time.Millisecond})
			ended := make(chan struct{})
			r.each = func(c *tcptest.Conn) { r.takeFaulty(c, test.fault, ended) }
			r.start()
			counters := r.counters()
			x := tcptest.Exchange{Seed: 1, Up: 2 << 20, Down: 2 << 20, Pause: 10 * time.Millisecond, Slow: 10 * time.Millisecond}
			result := make(chan error, 1)
			go func() { result <- r.ends.Run(x, r.dial(r.client, labNear)) }()
			if test.dies {
				r.untilGrown(test.at, test.counter, counters[test.at])
				close(ended)
			}
			err := <-result
			if !test.dies {
				close(ended)
			}
			if (err != nil) != test.dies {
				t.Errorf("the exchange: %v, want that it fails: %v", err, test.dies)
			}
			r.stop()
			if r.outcome.of(wasTaken) != 1 {
				t.Fatalf("got %v, want a takeover", &r.outcome)
			}
			for name, after := range r.counters() {
				changed := after.Since(counters[name])
				maps.DeleteFunc(changed, func(name string, _ uint64) bool { return !isFault[name] })
				switch wanted := name == test.at; {
				case wanted && changed[test.counter] == 0:
					t.Errorf("%s of the %s does not grow", test.counter, name)
				case test.at == "" && len(changed) > 0:
					t.Errorf("%s: without a fault %v have grown", name, changed)
				}
			}
			if up, _ := r.near.Counts(); up.Marked == 0 && !test.dies {
				t.Error("the line has not marked a packet")
			}
		})
	}
}

// takeFaulty takes a connection over, puts a fault into the entry, and lets the line mark packets.
func (r *lineLab) takeFaulty(c *tcptest.Conn, fault func(client, upstream *spliceHalf), ended <-chan struct{}) {
	pair := r.mustTake(c, 0)
	if pair == nil {
		return
	}
	fault(&pair.entry.Halves[fromClient], &pair.entry.Halves[fromUpstream])
	r.near.SetEach(nettest.LineConditions{Delay: time.Millisecond, CE: 0.05}, nettest.LineConditions{Delay: time.Millisecond})
	<-ended
	if err := pair.Abort(); err != nil {
		r.Error(err)
	}
}

// untilGrown waits until a counter of a host has grown, at most a minute.
func (r *lineLab) untilGrown(host, counter string, before nettest.Counters) {
	r.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if r.hosts()[host].Counters().Since(before)[counter] > 0 {
			return
		}
	}
}
