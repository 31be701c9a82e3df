package p2p

import (
	"net"
	"sync"

	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/portmap"
	"github.com/quicway/quicway/internal/udp"
)

// localAddresses are the addresses at which peers may reach this host without the relay.
// It notifies the connections when they change.
type localAddresses struct {
	endpoint *Endpoint
	monitor  *netmon.Monitor // nil: the addresses cannot be listed

	mu          sync.Mutex      // guards the following
	mapper      *portmap.Mapper // nil: disabled
	closed      bool
	subscribers map[*Conn]chan<- struct{}
}

// openLocals starts to watch the addresses with the first connection that needs them.
func (e *Endpoint) openLocals() *localAddresses {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.locals != nil || e.closed {
		return e.locals
	}
	l := &localAddresses{endpoint: e, subscribers: make(map[*Conn]chan<- struct{})}
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

// isUDP says whether a socket is a UDP socket of this host. If so, its addresses are the
// host's.
func isUDP(s *udp.Socket) bool {
	_, ok := s.Conn().(*net.UDPConn)
	return ok
}

// watch begins to watch the addresses of the interfaces.
func (l *localAddresses) watch() {
	e := l.endpoint
	var err error
	if l.monitor, err = netmon.New(e.conf.monitor()); err != nil {
		e.log.Warn("the addresses of this host cannot be listed", "err", err)
		return
	}
	e.tasks.Go(func() { l.follow(l.monitor.Changes(), true) })
}

// follow notifies the connections of changes until the channel is closed. host says that
// the changes are those of the interfaces.
func (l *localAddresses) follow(changes <-chan struct{}, host bool) {
	for range changes {
		l.mu.Lock()
		if host && l.mapper != nil {
			l.mapper.Refresh()
		}
		for _, c := range l.subscribers {
			notify(c)
		}
		l.mu.Unlock()
	}
}

// notify puts a token into a channel that holds one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// subscribe puts a token into changed after each change, until unsubscribe.
func (l *localAddresses) subscribe(c *Conn, changed chan<- struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers[c] = changed
}

func (l *localAddresses) unsubscribe(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subscribers, c)
}

// monitor returns the configuration of the monitor.
func (c *Config) monitor() *netmon.Config {
	conf := &netmon.Config{List: c.list, Partial: true}
	if wanted := c.LocalInterfaces; wanted != nil {
		conf.Filter = func(a netmon.Address) bool { return wanted(a.Interface) }
	}
	return conf
}

// hostAddrs returns the present addresses of this host, without watching them.
func (e *Endpoint) hostAddrs() []candidate {
	l := &localAddresses{endpoint: e}
	if e.conf.list != nil || isUDP(e.mux.all()[0]) {
		var err error
		if l.monitor, err = netmon.New(e.conf.monitor()); err != nil {
			e.log.Warn("the addresses of this host cannot be listed", "err", err)
		} else {
			defer l.monitor.Close()
		}
	}
	return l.all()
}

// all returns the present addresses, the best first.
func (l *localAddresses) all() []candidate {
	var ranked []rankedAddr
	for _, s := range l.endpoint.mux.all() {
		bound := s.LocalAddr()
		if !bound.Addr().IsUnspecified() {
			ranked = append(ranked, rankedHost(netmon.Address{Addr: bound.Addr(), Role: netmon.Uplink}, bound.Port()))
			continue
		}
		if l.monitor == nil {
			continue
		}
		for _, a := range l.monitor.Addresses() {
			if l.endpoint.mux.toward(a.Addr) == s {
				ranked = append(ranked, rankedHost(a, bound.Port()))
			}
		}
	}
	l.mu.Lock()
	mapper := l.mapper
	l.mu.Unlock()
	if mapper != nil {
		if m, ok := mapper.Mapping(); ok && !m.Private() {
			ranked = append(ranked, rankedAddr{candidate: candidate{MappedCandidate, m.External}, rank: rankMapped})
		}
	}
	return byRank(ranked)
}

func (l *localAddresses) close() {
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
