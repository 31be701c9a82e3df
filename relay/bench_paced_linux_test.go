package relay

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/livetest"
)

// paced is the network of BenchmarkPaced: what arrives at the sink has its delay counted, and is
// dropped.
type paced struct {
	*live
	delays *livetest.Delays
}

func newPaced(b *testing.B) *paced {
	const headers = 14 + 20 + 8 // of Ethernet, IPv4 and UDP
	p := &paced{live: newLive(b), delays: livetest.NewDelays(b, headers+stampAt)}
	p.delays.Attach(b, p.sink, "eth0")
	return p
}

// pacedResult is what a turn has shown.
type pacedResult struct {
	process float64  // CPU time of this process for a packet, in nanoseconds
	machine float64  // with what the sender's system calls and the kernel's threads took
	delays  []uint64 // how many packets had each delay, in microseconds
	kept    float64  // the part of the packets that was forwarded soon
	slow    bool     // the sender has not reached the rate
	pps     float64  // packets that the sender has sent in a second
}

// soon is after the end of a turn.
const soon = 10 * time.Millisecond

// turn has packets sent to one of the loops at a rate.
func (p *paced) turn(k, flows, rate int) pacedResult {
	port, forwarded := uint16(4433), p.relayed
	if k == 1 {
		port, forwarded = 4434, p.plainSent.Load
	}
	p.delays.Take(p)
	before := forwarded()
	process, all := livetest.ProcessTime(p, os.Getpid()), livetest.CPUTime(p)
	sent, calls := p.order(port, flows, rate)
	process, all = livetest.ProcessTime(p, os.Getpid())-process, livetest.CPUTime(p)-all
	time.Sleep(soon)
	n := float64(forwarded() - before)
	for last := uint64(0); forwarded() != last; time.Sleep(soon) {
		last = forwarded()
	}
	if n == 0 {
		p.Fatal("nothing was forwarded")
	}
	pps := float64(sent) / liveTurn.Seconds()
	return pacedResult{
		process: float64(process) / n, machine: float64(all+calls) / n, delays: p.delays.Take(p),
		kept: n / float64(sent), slow: pps < 0.97*float64(rate), pps: pps,
	}
}

// figures are what has been measured of the relay and of the simple loop in each round.
type figures map[string][]float64

func (f figures) add(unit string, ours, plain float64) {
	f[unit] = append(f[unit], ours)
	f[unit+"-plain"] = append(f[unit+"-plain"], plain)
	f["of-plain-"+unit] = append(f["of-plain-"+unit], ours/max(plain, 1e-9))
}

// report reports the medians.
func (f figures) report(b *testing.B) {
	for unit, all := range f {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
}

// BenchmarkPaced measures what a packet costs a relay, beside a simple loop that takes turns with
// it, when a sender in another process is slower than both, so that the loops are found waiting:
// CPU time, and how long a packet is on its way. The packets are of 64 flows in turns, or trains of
// one flow. In the last two cases the rate rises in steps, and figures are the highest rate of
// which at most a thousandth is lost or late, or the sender's highest. One op is a turn of each,
// or such a search. It reports medians, also of what a figure is of the simple loop's in the same
// round.
func BenchmarkPaced(b *testing.B) {
	for _, shape := range []struct{ flows, rate int }{
		{liveFlows, 10_000}, {liveFlows, 30_000}, {liveFlows, 50_000}, {1, 30_000},
	} {
		b.Run(fmt.Sprintf("flows=%d/pps=%d", shape.flows, shape.rate), func(b *testing.B) {
			p, f := newPaced(b), make(figures)
			for round := range b.N {
				var r [2]pacedResult
				for k := range r {
					k = (k + round) % 2
					r[k] = p.turn(k, shape.flows, shape.rate)
				}
				f.add("cpu-ns", r[0].process, r[1].process)
				f.add("machine-ns", r[0].machine, r[1].machine)
				f.add("p50-us", livetest.Quantile(r[0].delays, 0.5), livetest.Quantile(r[1].delays, 0.5))
				f.add("p99-us", livetest.Quantile(r[0].delays, 0.99), livetest.Quantile(r[1].delays, 0.99))
			}
			f.report(b)
		})
	}
	for _, flows := range []int{liveFlows, 1} {
		b.Run(fmt.Sprintf("flows=%d/most", flows), func(b *testing.B) {
			p, f := newPaced(b), make(figures)
			for range b.N {
				most := p.most(flows)
				f.add("most-pps", most[0], most[1])
			}
			f.report(b)
		})
	}
}

// most returns the highest rate at which each loop keeps up with the sender. A step that fails is
// tried three times, since other work may have disturbed it.
func (p *paced) most(flows int) (most [2]float64) {
	ended := [2]bool{}
	for rate := 20_000.0; ended != [2]bool{true, true}; rate *= 1.15 {
		for k := range most {
			var r pacedResult
			for try := 0; try < 3 && !ended[k]; try++ {
				if r = p.turn(k, flows, int(rate)); r.kept >= 0.999 {
					most[k] = max(most[k], r.pps)
					break
				}
			}
			ended[k] = ended[k] || r.kept < 0.999 || r.slow
		}
	}
	return most
}
