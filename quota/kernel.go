package quota

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/ratelog"
)

const (
	// lease is how long the kernel drops packets without a renewal, for example after
	// the process was killed.
	lease = 10 * time.Second
	// renewEvery is the interval at which the lease is renewed.
	renewEvery = time.Second
)

// kernelEnforcer is the enforcer that uses the quota stage of an XDP program.
type kernelEnforcer struct {
	stage   *datapath.Quota
	program *datapath.Program
	log     *slog.Logger
	drops   func(datapath.SourceDrops)
	before  map[datapath.Reason]uint64 // the counters when it was made
	errors  ratelog.Errors
	stop    context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex // guards the following
	// missing are prefixes on the allow list that the kernel has no room for, and the ends
	// of their entries. While there are any, the kernel must not drop anything.
	missing map[netip.Prefix]time.Time
	ports   map[uint16]guarded
	closed  bool
}

// guarded is a port under the quota. The kernel knows one length of connection IDs for
// each port. So a port whose servers have IDs of different lengths is left to Go.
type guarded struct {
	conns int
	idLen int // mixed: different lengths
}

const mixed = -1

var _ enforcer = (*kernelEnforcer)(nil)

// newKernelEnforcer takes the program's quota stage and sets its policy. It calls drops
// for sources whose packets were dropped because they exceeded a rate.
func newKernelEnforcer(program *datapath.Program, sources *sourceTable, log *slog.Logger, drops func(datapath.SourceDrops)) (*kernelEnforcer, error) {
	stage, err := program.Quota()
	if err != nil {
		return nil, err
	}
	k := &kernelEnforcer{
		stage: stage, program: program, log: log, drops: drops,
		missing: make(map[netip.Prefix]time.Time), ports: make(map[uint16]guarded),
	}
	if k.before, err = program.Stats(); err == nil {
		err = stage.SetPolicy(kernelPolicy(sources))
	}
	if err == nil {
		err = stage.Renew(lease)
	}
	if err != nil {
		return nil, errors.Join(err, stage.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	k.running.Go(func() { k.renew(ctx) })
	k.running.Go(func() {
		for d := range stage.Drops(ctx) {
			k.drops(d)
		}
	})
	return k, nil
}

// renew renews the lease until ctx is done.
func (k *kernelEnforcer) renew(ctx context.Context) {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.mu.Lock()
			k.renewLocked()
			k.mu.Unlock()
		}
	}
}

func (k *kernelEnforcer) renewLocked() {
	d, now := lease, time.Now()
	maps.DeleteFunc(k.missing, func(_ netip.Prefix, end time.Time) bool { return !now.Before(end) })
	if len(k.missing) > 0 {
		d = 0
	}
	k.check(k.stage.Renew(d))
}

func (k *kernelEnforcer) allow(prefix netip.Prefix, ttl time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.stage.Put(datapath.AllowList, prefix, ttl)
	k.check(err)
	was := len(k.missing)
	if err != nil && ttl > 0 {
		k.missing[prefix] = time.Now().Add(ttl)
	} else {
		delete(k.missing, prefix)
	}
	if (was > 0) != (len(k.missing) > 0) {
		k.renewLocked()
	}
}

func (k *kernelEnforcer) deny(prefix netip.Prefix, ttl time.Duration) {
	k.check(k.stage.Put(datapath.DenyList, prefix, ttl))
}

func (k *kernelEnforcer) turnAway(source netip.Prefix, ttl time.Duration) (dropped uint64) {
	dropped, err := k.stage.Refuse(source, ttl)
	k.check(err)
	return dropped
}

func (k *kernelEnforcer) expect(peer netip.AddrPort, ttl time.Duration) {
	k.check(k.stage.Expect(peer, ttl))
}

func (k *kernelEnforcer) guard(port uint16, idLen int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[port]
	if p.conns > 0 && p.idLen != idLen {
		idLen = mixed
	}
	k.ports[port] = guarded{p.conns + 1, idLen}
	if idLen == mixed {
		k.check(k.stage.Unguard(port))
		return
	}
	k.check(k.stage.Guard(port, idLen))
}

func (k *kernelEnforcer) unguard(port uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[port]
	if p.conns--; p.conns > 0 {
		k.ports[port] = p
		return
	}
	delete(k.ports, port)
	k.check(k.stage.Unguard(port))
}

func (k *kernelEnforcer) packets(list List, prefix netip.Prefix) uint64 {
	n, err := k.stage.Packets(kernelLists[list], prefix)
	k.check(err)
	return n
}

var kernelLists = [numLists]datapath.List{DenyList: datapath.DenyList, AllowList: datapath.AllowList}

// kernelReasons maps the kernel's reasons for dropping packets.
var kernelReasons = map[datapath.Reason]Reason{
	datapath.QuotaDenied: Denied, datapath.QuotaPacketRate: PacketRate, datapath.QuotaShortInitial: ShortInitial,
	datapath.QuotaRefused: Connections, datapath.QuotaAttemptRate: AttemptRate,
}

func (k *kernelEnforcer) dropped() map[Reason]uint64 {
	now, err := k.program.Stats()
	k.check(err)
	out := make(map[Reason]uint64)
	for r, why := range kernelReasons {
		if n := now[r] - k.before[r]; err == nil && n > 0 {
			out[why] = n
		}
	}
	return out
}

func (k *kernelEnforcer) failed() uint64 { return k.errors.Count() }

func (k *kernelEnforcer) close() error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	k.mu.Unlock()
	if closed {
		return nil
	}
	k.stop()
	k.running.Wait()
	return k.stage.Close()
}

// check counts errors and logs the first one. They are not fatal, since the packet filter
// drops what the kernel does not.
func (k *kernelEnforcer) check(err error) {
	if err == nil || errors.Is(err, datapath.ErrClosed) {
		return
	}
	k.errors.Add(k.log, slog.LevelWarn, "the kernel could not be told of a decision; the packet filter applies it instead", err)
}

// kernelPolicy returns the limits in the form of package datapath.
func kernelPolicy(sources *sourceTable) *datapath.QuotaPolicy {
	conf := sources.conf
	p := &datapath.QuotaPolicy{
		Limits:     kernelLimits(sources.source),
		Exceptions: make(map[netip.Prefix]datapath.QuotaLimits),
		IPv4Bits:   conf.IPv4Bits, IPv6Bits: conf.IPv6Bits,
		Patience: conf.HandshakeTimeout,
	}
	for prefix, l := range sources.overrides.All() {
		p.Exceptions[prefix] = kernelLimits(l)
	}
	return p
}

func kernelLimits(l *limits) datapath.QuotaLimits {
	return datapath.QuotaLimits{
		Attempts: datapath.RateLimit{Interval: time.Duration(l.attempt.interval), Depth: time.Duration(l.attempt.depth)},
		Packets:  datapath.RateLimit{Interval: time.Duration(l.packet.interval), Depth: time.Duration(l.packet.depth)},
	}
}

// kernelDropped counts and reports packets of a source that the kernel has dropped.
func (r *reporter) kernelDropped(d datapath.SourceDrops) {
	at, now := r.sources.place(d.Source), r.clock.now()
	at.shard.mu.Lock()
	s := r.sources.lookupLocked(&at, now)
	if s != nil && d.Packets > 0 {
		s.dropped += uint64(d.Packets) - 1 // keptOutLocked counts one
	}
	r.unlock(at.shard, r.keptOutLocked(s, Drop, kernelReasons[d.Reason], now))
}
