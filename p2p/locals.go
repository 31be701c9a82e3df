package p2p

import (
	"net"
	"net/netip"
	"sync"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/portmap"
	"github.com/quicway/quicway/internal/udp"
)

// locals knows at which addresses this host may be reached past the relay, and
// tells the connections when they change.
type locals struct {
	endpoint *Endpoint
	monitor  *netmon.Monitor // nil: it cannot be told

	mu      sync.Mutex      // guards the following
	mapper  *portmap.Mapper // nil: not wanted
	closed  bool
	waiting map[*Conn]chan<- struct{}
}

// openLocals starts to look, once there is a connection that wants to know.
func (e *Endpoint) openLocals() *locals {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.locals != nil || e.closed {
		return e.locals
	}
	l := &locals{endpoint: e, waiting: make(map[*Conn]chan<- struct{})}
	if e.conf.list != nil || isUDP(e.mux.all()[0]) {
		l.watch()
	}
	l.remap()
	e.tasks.Go(func() {
		<-e.ctx.Done()
		l.close()
	})
	e.locals = l
	return l
}

// isUDP says whether a socket is one of this host's, whose addresses are its own.
func isUDP(s *udp.Socket) bool {
	_, ok := s.Conn().(*net.UDPConn)
	return ok
}

// watch begins to watch the host's addresses.
func (l *locals) watch() {
	e := l.endpoint
	var err error
	if l.monitor, err = netmon.New(&netmon.Config{List: e.conf.list}); err != nil {
		e.log.Warn("the addresses of this host cannot be listed", "err", err)
		return
	}
	e.tasks.Go(func() { l.follow(l.monitor.Changes(), true) })
}

// follow tells the connections of changes until there are no more.
func (l *locals) follow(changes <-chan struct{}, host bool) {
	for range changes {
		l.mu.Lock()
		if host && l.mapper != nil {
			l.mapper.Refresh()
		}
		for _, c := range l.waiting {
			poke(c)
		}
		l.mu.Unlock()
	}
}

// poke leaves a token in a channel that holds one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tell makes changes known to a connection, until ignore.
func (l *locals) tell(c *Conn, changed chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[c] = changed
}

func (l *locals) ignore(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, c)
}

// candidates are the addresses as they are now.
func (l *locals) candidates() []candidate {
	var out []candidate
	for _, s := range l.endpoint.mux.all() {
		bound := s.LocalAddr()
		if !bound.Addr().IsUnspecified() {
			out = append(out, candidate{HostCandidate, bound})
			continue
		}
		if l.monitor == nil {
			continue
		}
		for _, a := range l.monitor.Addresses() {
			if l.endpoint.mux.toward(a.Addr) == s {
				out = append(out, candidate{HostCandidate, netip.AddrPortFrom(a.Addr, bound.Port())})
			}
		}
	}
	l.mu.Lock()
	mapper := l.mapper
	l.mu.Unlock()
	if mapper != nil {
		if m, ok := mapper.Mapping(); ok && !m.Private() {
			out = append(out, candidate{MappedCandidate, m.External})
		}
	}
	return out
}

func (l *locals) close() {
	if l.monitor != nil {
		_ = l.monitor.Close()
	}
	l.mu.Lock()
	l.closed = true
	mapper := l.mapper
	l.mu.Unlock()
	if mapper != nil {
		_ = mapper.Close()
	}
}
