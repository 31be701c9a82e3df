package sni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// quicRelay is the part of a server that relays QUIC.
type quicRelay struct {
	server   *Server
	conf     *Config
	shards   []*shard
	table    *flowTable
	counters quicCounters

	upstreamLog atomic.Bool // a failure of an upstream is being logged
}

// listenUDP opens the UDP sockets of a server at one address.
func listenUDP(ctx context.Context, network, address string, cfg *Config) ([]net.PacketConn, error) {
	shards := 0
	if cfg != nil {
		shards = cfg.Shards
	}
	if shards == 0 {
		shards = 1
		if udp.CanShard {
			shards = runtime.GOMAXPROCS(0)
		}
	}
	if shards < 0 {
		return nil, fmt.Errorf("%w: Shards is %d, want a positive number", ErrConfig, shards)
	}
	sockets, err := udp.Listen(ctx, network, address, shards, nil)
	if errors.Is(err, udp.ErrShards) {
		err = fmt.Errorf("%w: Shards: %w", ErrConfig, err)
	}
	var conns []net.PacketConn
	for _, s := range sockets {
		conns = append(conns, s.Conn())
	}
	return conns, err
}

// newQUICRelay makes the part of a server that relays QUIC. The caller closes the conns if
// there is an error.
func newQUICRelay(s *Server, conns []net.PacketConn) (*quicRelay, error) {
	q := &quicRelay{server: s, conf: s.conf, table: newFlowTable(s.conf)}
	for _, conn := range conns {
		sh, err := newShard(q, conn)
		if err != nil {
			return nil, errors.Join(err, q.close())
		}
		q.shards = append(q.shards, sh)
	}
	return q, nil
}

// start starts the loops. Each ends when close is called; failed gets another reason.
func (q *quicRelay) start(running *workers, failed func(error)) {
	for _, sh := range q.shards {
		running.Go(func() { failed(sh.read()) })
		running.Go(func() { failed(sh.group.Run(sh.answers)) })
	}
	running.Go(q.sweepLoop)
}

// addrs returns the addresses of the sockets.
func (q *quicRelay) addrs() (all []netip.AddrPort) {
	for _, sh := range q.shards {
		all = append(all, sh.socket.LocalAddr())
	}
	return all
}

// close closes the sockets, and ends all flows.
func (q *quicRelay) close() error {
	var errs []error
	for _, sh := range q.shards {
		errs = append(errs, sh.socket.Close(), sh.group.Close())
	}
	for _, f := range q.table.all() {
		q.end(f, ServerClosed)
	}
	return errors.Join(errs...)
}

// end ends a flow. why is counted if it is an attempt that the client has not confirmed.
func (q *quicRelay) end(f *flow, why Failure) {
	q.table.mu.Lock()
	ended := q.endLocked(f, why)
	q.table.mu.Unlock()
	ended.finish()
}

// sweepLoop ends what has expired, until the server is closed.
func (q *quicRelay) sweepLoop() {
	ticker := time.NewTicker(q.sweepPeriod())
	defer ticker.Stop()
	for {
		select {
		case <-q.server.closing.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		for _, sh := range q.shards {
			sh.sweep(now)
		}
	}
}

// sweepPeriod is a quarter of the shortest time limit, and a second at most.
func (q *quicRelay) sweepPeriod() time.Duration {
	shortest := min(q.conf.HelloTimeout, q.conf.DialTimeout, q.conf.QUICIdleTimeout)
	return max(min(shortest/4, time.Second), time.Millisecond)
}
