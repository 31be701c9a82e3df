package nettest

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// LineConditions are what happens to packets in one direction of a [Line]. The zero value
// delivers all of them at once. All but Delay are for TCP and UDP only, so that address
// resolution works under all conditions.
type LineConditions struct {
	Loss      float64       // probability that a packet is lost
	Duplicate float64       // probability that a packet arrives twice
	Reorder   float64       // probability that a packet arrives later than those behind it
	CE        float64       // probability that a packet with ECT arrives with CE (RFC 3168 §5)
	Delay     time.Duration // one way
	Behind    time.Duration // additional delay of a packet that is reordered; 0: Delay/2 and 500 µs
	Rate      int           // bytes a second, with the Ethernet header; 0: no limit
	Queue     int           // packets on the way, above which more are lost; 0: 4096
	MTU       int           // largest IP packet; 0: no limit

	// Silent is set to lose larger packets than MTU without the ICMP message that
	// TCP learns the path's MTU from (RFC 1191, RFC 8201).
	Silent bool
}

// LineCounts are the numbers of TCP and UDP packets in one direction of a [Line].
type LineCounts struct {
	Received  uint64 // from the host that sends
	Delivered uint64 // to the host that receives; a duplicate is one more
	Lost      uint64 // by Loss
	TooBig    uint64 // larger than MTU, and so lost
	Overflown uint64 // lost since the queue was full

	Duplicated, Reordered, Marked uint64
}

// defaultQueue is the default of LineConditions.Queue.
const defaultQueue = 4096

// lane is one direction of a line, without its interfaces. It has no lock.
type lane struct {
	conditions LineConditions
	counts     LineCounts
	rng        *rand.Rand
	queue      delayed
	accepted   uint64    // packets that have been put into the queue
	free       time.Time // when the last packet has left, at the rate of the line
}

func newLane(seed, stream uint64) *lane {
	return &lane{rng: rand.New(rand.NewPCG(seed, stream))}
}

// accept decides what happens to a frame that arrives now. It keeps the frame. It returns
// the frame that goes back to the sender at once, or nil.
func (l *lane) accept(frame []byte, now time.Time) (answer []byte) {
	c, ip := l.conditions, parseFrame(frame)
	if !ip.transport {
		heap.Push(&l.queue, delayedFrame{due: now.Add(c.Delay), order: l.order(), frame: frame})
		return nil
	}
	l.counts.Received++
	if c.MTU > 0 && ip.length > c.MTU {
		l.counts.TooBig++
		if c.Silent {
			return nil
		}
		return ip.tooBig(c.MTU)
	}
	// Each packet takes as many random numbers, so that conditions that change do not
	// change the decisions of the others.
	lost, twice, late, marked := l.draw(c.Loss), l.draw(c.Duplicate), l.draw(c.Reorder), l.draw(c.CE)
	if lost {
		l.counts.Lost++
		return nil
	}
	if marked && ip.markCE() {
		l.counts.Marked++
	}
	due := l.transmitted(len(frame), now).Add(c.Delay)
	if late {
		l.counts.Reordered++
		due = due.Add(l.behind())
	}
	l.put(frame, due)
	if twice {
		l.counts.Duplicated++
		l.put(frame, due)
	}
	return nil
}

func (l *lane) draw(probability float64) bool { return l.rng.Float64() < probability }

func (l *lane) behind() time.Duration {
	if l.conditions.Behind > 0 {
		return l.conditions.Behind
	}
	return l.conditions.Delay/2 + 500*time.Microsecond
}

// transmitted returns when the line has sent the last byte of a frame that arrives now.
func (l *lane) transmitted(size int, now time.Time) time.Time {
	if l.conditions.Rate <= 0 {
		return now
	}
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(size) * time.Second / time.Duration(l.conditions.Rate))
	return l.free
}

func (l *lane) put(frame []byte, due time.Time) {
	limit := l.conditions.Queue
	if limit <= 0 {
		limit = defaultQueue
	}
	if len(l.queue) >= limit {
		l.counts.Overflown++
		return
	}
	heap.Push(&l.queue, delayedFrame{due: due, order: l.order(), frame: frame, counted: true})
}

// order returns a number that is larger than all before.
func (l *lane) order() uint64 {
	l.accepted++
	return l.accepted
}

// deliver returns the next frame that is due now, or nil.
func (l *lane) deliver(now time.Time) []byte {
	if len(l.queue) == 0 || l.queue[0].due.After(now) {
		return nil
	}
	f := heap.Pop(&l.queue).(delayedFrame)
	if f.counted {
		l.counts.Delivered++
	}
	return f.frame
}

// next returns when the next frame is due, if there is one.
func (l *lane) next() (due time.Time, ok bool) {
	if len(l.queue) == 0 {
		return time.Time{}, false
	}
	return l.queue[0].due, true
}

type delayedFrame struct {
	due     time.Time
	order   uint64 // of frames that are due at the same time
	frame   []byte
	counted bool // TCP or UDP
}

// delayed is a heap of frames. The one that is due first is the first.
type delayed []delayedFrame

func (d delayed) Len() int      { return len(d) }
func (d delayed) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d delayed) Less(i, j int) bool {
	if d[i].due.Equal(d[j].due) {
		return d[i].order < d[j].order
	}
	return d[i].due.Before(d[j].due)
}
func (d *delayed) Push(x any) { *d = append(*d, x.(delayedFrame)) }
func (d *delayed) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = delayedFrame{}
	*d = old[:len(old)-1]
	return last
}
