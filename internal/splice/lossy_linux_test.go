package splice

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/tcptest"
)

// TestLossy takes connections over and back at random moments, while their ends send in one
// or both directions over lines that lose, reorder and duplicate packets, and close or reset
// in each order. Each byte has to arrive, and nothing may be left.
func TestLossy(t *testing.T) {
	const connections, size, takeovers = 12, 768 << 10, 6
	for _, test := range []struct {
		name       string
		conditions nettest.LineConditions
	}{
		{"no loss", nettest.LineConditions{}},
		{"0.5 % loss", nettest.LineConditions{Loss: 0.005, Reorder: 0.01}},
		{"1 % loss", nettest.LineConditions{Loss: 0.01, Reorder: 0.02, Duplicate: 0.005}},
	} {
		t.Run(test.name, func(t *testing.T) {
			families(t, func(t *testing.T, v6 bool) {
				r := newLineLab(t, v6, nil)
				conditions := test.conditions
				conditions.Delay = time.Millisecond
				r.set(conditions)
				r.prefix = []byte("PROXY UNKNOWN\r\n")
				r.each = func(c *tcptest.Conn) { r.churn(c, 3, 80*time.Millisecond) }
				r.start()
				counters := r.counters()
				ends := tcptest.Ends()
				if test.conditions.Loss > 0 {
					ends = []tcptest.End{tcptest.EachWhenDone, tcptest.ClientFirst, tcptest.ServerFirst} // a reset may be lost
				}
				exchange := func(i int) tcptest.Exchange {
					x := tcptest.Exchange{Up: size, Down: size, End: ends[i%len(ends)], Pause: 12 * time.Millisecond}
					switch i / len(ends) % 4 {
					case 1:
						x.Up = 2
					case 2:
						x.Down = 2
					}
					return x
				}
				// On a busy machine connections are seldom quiet in time.
				for round := 0; round == 0 || round < 10 && r.outcome.of(wasTaken) < takeovers; round++ {
					r.exchange(connections, exchange)
				}
				if test.conditions.Loss == 0 {
					r.faultless(counters)
				}
				r.leftovers()
				t.Logf("%v, lost %v", &r.outcome, r.lost())
				if n := r.outcome.of(wasTaken); n < takeovers {
					t.Errorf("%d connections were taken over, want %d or more: %v", n, takeovers, &r.outcome)
				}
			})
		})
	}
}

// churn takes a connection over and back at random moments, up to a number of times.
func (r *lineLab) churn(c *tcptest.Conn, times int, pause time.Duration) {
	sleep := func() { time.Sleep(rand.N(pause)) }
	injected := len(r.prefix)
	for range times {
		sleep()
		pair := r.take(c, injected)
		if pair == nil {
			continue
		}
		for sleep(); !r.back(c, pair); sleep() {
			if pair.End() != Running {
				return
			}
		}
		injected = 0
	}
}

// lost returns how many packets the lines have lost.
func (r *lineLab) lost() (n uint64) {
	for _, l := range []*nettest.Line{r.near, r.far} {
		there, back := l.Counts()
		n += there.Lost + back.Lost
	}
	return n
}

// counters reads the counters of all hosts.
func (r *lineLab) counters() map[string]nettest.Counters {
	r.Helper()
	all := make(map[string]nettest.Counters)
	for name, h := range r.hosts() {
		all[name] = h.Counters()
	}
	return all
}

// isFault has the counters of what does not happen to a host if all numbers in the packets that it
// gets are right, and the lines lose nothing. A busy machine makes hosts send again, so that
// TcpRetransSegs is not one of them.
var isFault = map[string]bool{
	"TcpExtPAWSEstab": true, "TcpExtTCPChallengeACK": true, "TcpExtBeyondWindow": true, "TcpExtTCPRcvQDrop": true,
	"TcpInCsumErrors": true, "TcpInErrs": true, "IpExtInCEPkts": true, "Ip6InCEPkts": true,
}

// faultless checks that no end has got wrong packets since before.
func (r *lineLab) faultless(before map[string]nettest.Counters) {
	r.Helper()
	all := r.counters()
	var handshakes uint64 // packets of handshakes that were sent again
	for name, after := range all {
		handshakes += after.Since(before[name])["TcpExtTCPSynRetrans"]
	}
	for name, after := range all {
		if name == "relay" { // an end may send beyond the window of a socket that has come back
			continue
		}
		for counter, n := range after.Since(before[name]) {
			if counter == "TcpExtBeyondWindow" && n <= 4*uint64(r.outcome.of(wasTaken)+r.outcome.of(wasReturned)) {
				continue // acknowledgements that a busy machine delivers late look the same, a few at each change
			}
			if (counter == "TcpExtTCPChallengeACK" || counter == "TcpInErrs") && n <= handshakes {
				continue // answers to a second SYN-ACK, which a busy machine sends
			}
			if isFault[counter] {
				r.Errorf("%s: %s has grown by %d", name, counter, n)
			}
		}
	}
}
