package splice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/tcptest"
)

// lineLab is a client, a relay and a server, with a line on each side of the relay.
type lineLab struct {
	*testing.T
	v6                    bool
	client, relay, server *nettest.Host
	near, far             *nettest.Line // between client and relay, relay and server
	program               *Program
	ends                  *tcptest.Server
	served, front         *net.TCPListener // of the server, of the relay

	// each is what Relay.Each does: it may take connections over and return them.
	each    func(*tcptest.Conn)
	prefix  []byte
	stop    func() // ends the relay, after all connections have ended
	outcome outcomes
}

// addresses of the hosts, as the client, the relay's two interfaces and the server have them.
var (
	labClient = [2]string{"10.1.0.1", "fd00:1::1"}
	labNear   = [2]string{"10.1.0.2", "fd00:1::2"}
	labFar    = [2]string{"10.2.0.2", "fd00:2::2"}
	labServer = [2]string{"10.2.0.1", "fd00:2::1"}
)

const labPort = "4433"

// newLineLab makes the hosts and lines, loads the program, and attaches it.
func newLineLab(t *testing.T, v6 bool, conf *Config) *lineLab {
	t.Helper()
	r := newLines(t, v6)
	r.load(conf)
	return r
}

// load loads the program, and attaches it.
func (r *lineLab) load(conf *Config) {
	r.Helper()
	l := r.lab()
	l.load(conf)
	r.program = l.program
}

// lab returns the hosts as a lab.
func (r *lineLab) lab() *lab {
	return &lab{t: r.T, v6: r.v6, client: r.client, relay: r.relay, server: r.server, served: r.served, program: r.program}
}

// newLines makes the hosts and lines.
func newLines(t *testing.T, v6 bool) *lineLab {
	t.Helper()
	r := &lineLab{T: t, v6: v6, client: nettest.NewHost(t), relay: nettest.NewHost(t), server: nettest.NewHost(t)}
	for _, h := range r.hosts() {
		// Reno slows down for each loss, so that faults show.
		h.Sysctl("net/ipv4/tcp_congestion_control", "reno")
	}
	both := func(a [2]string) []string { return []string{a[0] + "/24", a[1] + "/64"} }
	r.near = nettest.NewLine(r.client, "c0", both(labClient), r.relay, "ra", both(labNear), 1)
	r.far = nettest.NewLine(r.relay, "rb", both(labFar), r.server, "s0", both(labServer), 2)
	return r
}

func (r *lineLab) hosts() map[string]*nettest.Host {
	return map[string]*nettest.Host{"client": r.client, "relay": r.relay, "server": r.server}
}

// set sets the conditions of both lines.
func (r *lineLab) set(c nettest.LineConditions) {
	r.near.Set(c)
	r.far.Set(c)
}

func (r *lineLab) addr(of [2]string) string {
	if r.v6 {
		return net.JoinHostPort(of[1], labPort)
	}
	return net.JoinHostPort(of[0], labPort)
}

func (r *lineLab) listen(h *nettest.Host, at [2]string) (l *net.TCPListener) {
	r.Helper()
	h.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		x, err := lc.Listen(context.Background(), "tcp", r.addr(at))
		if err == nil {
			l = x.(*net.TCPListener)
		}
		return err
	})
	return l
}

// dial returns a function that connects a host to an address.
func (r *lineLab) dial(from *nettest.Host, to [2]string) func() (*net.TCPConn, error) {
	return func() (c *net.TCPConn, err error) {
		err = from.Run(func() error {
			d := net.Dialer{Timeout: 20 * time.Second}
			d.SetMultipathTCP(false)
			x, err := d.Dial("tcp", r.addr(to))
			if err == nil {
				c = x.(*net.TCPConn)
			}
			return err
		})
		return c, err
	}
}

// start starts the server and the relay.
func (r *lineLab) start() {
	r.Helper()
	r.serve()
	r.startRelay()
}

// startRelay starts the relay alone.
func (r *lineLab) startRelay() {
	r.Helper()
	r.front = r.listen(r.relay, labNear)
	dial := r.dial(r.relay, labServer)
	noted := func() (*net.TCPConn, error) {
		c, err := dial()
		if err != nil {
			r.Logf("the relay cannot dial: %v", err)
		}
		return c, err
	}
	relay := &tcptest.Relay{Dial: noted, Prefix: r.prefix, Each: r.each}
	var running sync.WaitGroup
	running.Go(func() { relay.Serve(r.front) })
	r.stop = sync.OnceFunc(func() {
		_ = r.front.Close()
		running.Wait()
	})
	r.Cleanup(r.stop)
}

// serve starts the server alone.
func (r *lineLab) serve() {
	r.Helper()
	r.served = r.listen(r.server, labServer)
	r.ends = tcptest.Serve(r.served, r.prefix)
	r.Cleanup(func() { _ = r.ends.Close() })
}

// exchange does the exchanges of n connections at the same time, and fails the test for each
// that goes wrong.
func (r *lineLab) exchange(n int, of func(i int) tcptest.Exchange) {
	r.Helper()
	var running sync.WaitGroup
	for i := range n {
		x := of(i)
		x.Seed = uint64(i) + 1
		running.Go(func() {
			if err := r.ends.Run(x, r.dial(r.client, labNear)); err != nil {
				r.Errorf("connection %d, %d up, %d down, %v: %v", i, x.Up, x.Down, x.End, err)
			}
		})
	}
	running.Wait()
}

// outcomes count what has become of the connections of a relay.
type outcomes struct {
	mu sync.Mutex
	n  map[string]int
}

func (o *outcomes) add(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = make(map[string]int)
	}
	o.n[what]++
}

func (o *outcomes) of(what string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[what]
}

func (o *outcomes) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Sprint(o.n)
}

// Outcomes of [lineLab.take] and [lineLab.back].
const (
	wasTaken    = "taken"
	wasReturned = "returned"
	wasBusy     = "not quiet in time"
	hadEnded    = "ended before"
	hasNoRoute  = "looks for its route" // a socket whose segments got lost
	wasLate     = "not back in time"
)

// take takes a connection over. It returns nil if the connection has ended, or was not quiet in
// time.
func (r *lineLab) take(c *tcptest.Conn, injected int) *Pair {
	client, upstream := c.Sockets()
	pair, err := r.program.Take(context.Background(), client, upstream, uint64(injected))
	var refusal *Refusal
	switch {
	case err == nil:
		r.outcome.add(wasTaken)
	case errors.As(err, &refusal) && refusal.Reason == RefusedBusy:
		r.outcome.add(wasBusy)
	case errors.As(err, &refusal) && refusal.Reason == RefusedInterface && refusal.Err == nil:
		r.outcome.add(hasNoRoute)
	case errors.As(err, &refusal) && isEnding(refusal.Reason):
		r.outcome.add(hadEnded)
	default:
		r.Errorf("take: %v", err)
	}
	return pair
}

// mustTake takes over a connection that goes on for long enough, also if the machine is so busy that
// it is not quiet in time at first.
func (r *lineLab) mustTake(c *tcptest.Conn, injected int) *Pair {
	pause := 10 * time.Millisecond
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(pause) {
		if pair := r.take(c, injected); pair != nil {
			return pair
		}
		pause = min(2*pause, 500*time.Millisecond) // a thousand connections may try at the same time
	}
	r.Errorf("no takeover within five minutes: %v", &r.outcome)
	return nil
}

// isEnding says whether connections that are ending may be refused for a reason.
func isEnding(why Reason) bool {
	return why == RefusedState || why == RefusedMissing || why == RefusedSocket
}

// back returns a pair to userspace, and reports whether it has.
func (r *lineLab) back(c *tcptest.Conn, pair *Pair) bool {
	client, upstream, err := pair.Return(context.Background())
	switch {
	case err == nil:
		r.outcome.add(wasReturned)
		c.Continue(client, upstream)
		return true
	case errors.Is(err, ErrTimeout):
		r.outcome.add(wasLate)
	case errors.Is(err, ErrEnding), errors.Is(err, ErrEnded):
		r.outcome.add(hadEnded)
		<-pair.Done()
	default:
		r.Errorf("return: %v", err)
	}
	return false
}

// leftovers checks that nothing is left when all connections have ended: no pairs and flows, and no
// sockets but those in TIME_WAIT. TestMain looks for goroutines and descriptors.
func (r *lineLab) leftovers() {
	r.Helper()
	r.stop()
	if r.ends != nil {
		_ = r.ends.Close()
	}
	for range r.program.Pairs() {
		r.Error("a pair is left")
	}
	r.lab().empty()
	for name, h := range r.hosts() {
		if h == nil {
			continue
		}
		nettest.Eventually(r.T, "the sockets of the "+name+" to end", func() bool { return len(r.sockets(h)) == 0 })
	}
	if err := r.program.Close(r.Context()); err != nil {
		r.Error(err)
	}
}

// sockets returns the lines of /proc/net/tcp of sockets that are not in TIME_WAIT.
func (r *lineLab) sockets(h *nettest.Host) (lines []string) {
	r.Helper()
	const timeWait = "06"
	h.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				if fields := strings.Fields(line); i > 0 && fields[3] != timeWait {
					lines = append(lines, line)
				}
			}
		}
		return nil
	})
	return lines
}
