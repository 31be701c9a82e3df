package p2p

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// probeQueue is how many probes wait for the pathfinder. Further ones are lost.
const probeQueue = 32

// pathfinder finds the best path for a connection, and leaves it when it dies. All
// is done by one goroutine, run; others only hand it what has arrived. ARCHITECTURE
// has its states.
type pathfinder struct {
	conn   *Conn
	link   *link
	locals *locals // nil: RelayOnly
	prober *prober

	frames  chan frame
	probes  chan arrived
	changed chan struct{} // addresses of this host
	sized   chan struct{} // large packets are being sent
	moves   chan move
	standby chan standby

	// Of run alone.
	policy   PathPolicy // ours and the peer's
	list     *checklist
	own      []candidate          // what the peer has been told
	numbers  []uint64             // by which sequence numbers
	sequence uint64               // the last one
	named    map[uint64]candidate // what the peer has told
	budget   budget               // of that
	started  time.Time
	round    round
	using    *move // a dialer's direct path in use
	left     *move // the one that it has left last, if nothing has come by the relay since
	moving   bool  // a move is under way
	unusable bool  // QUIC has failed in this round where probes were answered
	back     *quic.Path
	// preparing says that the way back is being validated.
	preparing bool
	current   netip.AddrPort // where the peer is; the zero AddrPort: at the relay
	since     time.Time      // when it came there
	vitals    vitals
	choose    time.Time // when a pair is to be chosen; zero: never
	retry     time.Time // when the standby is to be prepared again; zero: never
	found     time.Time // when the relay was there last

	relaySize, directSize sizer
	relay                 relayWatch
}

// arrived is a probe, or what looks like one.
type arrived struct {
	data []byte
	from netip.AddrPort // the zero AddrPort: in an envelope, by the relay
}

// standby is the way back over the relay, or why there is none.
type standby struct {
	path *quic.Path
	err  error
}

// newPathfinder makes what finds a connection's paths.
func newPathfinder(c *Conn) (*pathfinder, error) {
	prober, err := newProber(c.ConnectionState().TLS, c.link.role)
	if err != nil {
		return nil, err
	}
	f := &pathfinder{
		conn:    c,
		link:    c.link,
		prober:  prober,
		frames:  make(chan frame),
		probes:  make(chan arrived, probeQueue),
		changed: make(chan struct{}, 1),
		sized:   make(chan struct{}, 1),
		moves:   make(chan move, 1),
		standby: make(chan standby, 1),
		policy:  c.endpoint.conf.Policy,
		list:    newChecklist(),
		named:   make(map[uint64]candidate),
	}
	if c.link.relay.Addr().IsLoopback() {
		f.policy = RelayOnly // no way is shorter than by this very host
	}
	f.relaySize.size, f.directSize.size = &c.link.size, &c.link.direct.size
	c.link.mail.Store(&mail{own: prober.own, peer: prober.peer, finder: f})
	if f.policy != RelayOnly {
		f.locals = c.endpoint.openLocals()
		c.endpoint.mux.addProbed(prober.own, f)
	}
	return f, nil
}

// receive takes a probe from the network. It returns false if there is no room.
func (f *pathfinder) receive(data []byte, from netip.AddrPort) bool {
	select {
	case f.probes <- arrived{bytes.Clone(data), from}:
		return true
	default:
		return false
	}
}

// heed takes a frame that the peer has sent.
func (f *pathfinder) heed(fr frame) {
	fr.payload = bytes.Clone(fr.payload)
	select {
	case f.frames <- fr:
	case <-f.conn.Context().Done():
	}
}

// run finds paths until the connection ends.
func (f *pathfinder) run() {
	f.relaySize.restart(baseSize, time.Now())
	if f.locals == nil {
		f.idle()
		return
	}
	defer f.conn.endpoint.mux.removeProbed(f.prober.own, f)
	f.locals.tell(f.conn, f.changed)
	defer f.locals.ignore(f.conn)
	f.started = time.Now()
	f.wish()
	f.announce()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case fr := <-f.frames:
			f.frame(fr)
		case a := <-f.probes:
			f.probe(a)
		case <-f.changed:
			f.announce()
			f.replace(time.Now())
		case m := <-f.moves:
			f.moved(m)
		case s := <-f.standby:
			f.prepared(s)
		case <-f.sized:
		case <-timer.C:
		}
		timer.Reset(time.Until(f.advance(time.Now())))
	}
}

// idle is run for a side that wants nothing but the relay. It says so.
func (f *pathfinder) idle() {
	f.wish()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case <-f.frames:
		case <-f.changed:
		case a := <-f.probes:
			f.probe(a)
		case <-f.sized:
		case <-timer.C:
		}
		now := time.Now()
		timer.Reset(time.Until(earliest(now, f.measure(now), f.watchRelay(now))))
	}
}

// advance does what is due, and returns when it should be called again.
func (f *pathfinder) advance(now time.Time) time.Time {
	if f.link.role == control.Accepter {
		f.follow(now)
	}
	return earliest(now,
		f.watch(now), f.begin(now), f.send(now), f.decide(now), f.end(now), f.renew(now), f.comeBack(now), f.enforce(now),
		f.measure(now), f.watchRelay(now))
}

// earliest returns the first of the times that are not zero, in an hour at most.
func earliest(now time.Time, times ...time.Time) time.Time {
	next := now.Add(time.Hour)
	for _, at := range times {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// direct says whether the connection has a direct path.
func (f *pathfinder) direct() bool { return f.current.IsValid() }
