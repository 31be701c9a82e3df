package quota

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// Controller decides who is let in. Make one with [New]. It may serve any number
// of transports, which then share its limits. All methods may be called
// concurrently.
type Controller struct {
	conf      *Config
	log       *slog.Logger
	start     time.Time
	seed      maphash.Seed
	source    *limits
	site      *limits
	exempt    *limits
	overrides bart.Table[*limits]
	request   rate // of one connection
	// limitsPackets says whether any source or site has a rate of packets.
	limitsPackets bool
	// listens says that a Listener tells of handshakes that are complete.
	listens   atomic.Bool
	shards    []shard
	lists     lists
	enforcer  enforcer
	enforcing sync.Mutex // held while the enforcer is told of an entry
	events    hub
	counters  counters

	attempts, packets sharedBucket // of all

	mu    sync.Mutex // guards total, and is taken after a shard's
	total level
}

// New makes a Controller. cfg may be nil. Returns an error that wraps ErrConfig
// if it cannot work, or, with [Config.XDP], errors of package xdp.
func New(cfg *Config) (*Controller, error) {
	conf := cfg.withDefaults()
	if err := conf.validate(); err != nil {
		return nil, err
	}
	c := &Controller{
		conf:     conf,
		log:      conf.Logger,
		start:    conf.Now(),
		seed:     maphash.MakeSeed(),
		source:   compile(conf.Source, conf.RetrySource),
		site:     compile(conf.Site, 0),
		exempt:   &limits{exempt: true},
		request:  newRate(conf.ConnectionRequestRate, conf.ConnectionRequestBurst),
		enforcer: noEnforcer{},
	}
	c.total.limits = compile(conf.Total, conf.RetryHalfOpen)
	c.lists.max = conf.MaxEntries
	c.limitsPackets = c.source.packet.limited() || c.site.packet.limited()
	for _, o := range conf.Overrides {
		prefix, _ := listPrefix(o.Prefix) // has been validated
		l := c.exempt
		if !o.Exempt {
			l = compile(o.Limits.or(conf.Source), conf.RetrySource)
		}
		c.limitsPackets = c.limitsPackets || l.packet.limited()
		c.overrides.Insert(prefix, l)
	}
	c.makeShards()
	if conf.XDP != nil && !conf.DryRun {
		kernel, err := newKernelEnforcer(conf.XDP.Datapath(), c.policy(), c.log, c.noteKernel)
		if err != nil {
			return nil, fmt.Errorf("quota: %w", err)
		}
		c.enforcer = kernel
	}
	return c, nil
}

// makeShards divides what may be remembered.
func (c *Controller) makeShards() {
	n := 1
	for n < maxShards && c.conf.MaxSources >= n*2*maxShards {
		n *= 2
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		sh := &c.shards[i]
		sh.max = c.conf.MaxSources / n
		sh.sources, sh.sites = make(map[key]*source), make(map[key]*source)
	}
}

// now is the instant. It begins at an hour, when all buckets are full.
func (c *Controller) now() instant { return instant(c.conf.Now().Sub(c.start) + time.Hour) }

// time is the inverse of now.
func (c *Controller) time(t instant) time.Time { return c.start.Add(time.Duration(t) - time.Hour) }

// siteBits is how much of an address is a site: 0 for none.
func (c *Controller) siteBits(addr netip.Addr) int {
	if addr.Is4() {
		return max(c.conf.IPv4SiteBits, 0)
	}
	return max(c.conf.IPv6SiteBits, 0)
}

func (c *Controller) sourceBits(addr netip.Addr) int {
	if addr.Is4() {
		return c.conf.IPv4Bits
	}
	return c.conf.IPv6Bits
}

// Source returns the source that an address belongs to: the prefix that limits
// are kept for.
func (c *Controller) Source(addr netip.Addr) netip.Prefix {
	addr = plain(addr)
	prefix, err := addr.Prefix(c.sourceBits(addr))
	if err != nil {
		return netip.Prefix{} // of no address
	}
	return prefix
}

// plain is an address without zone, and not mapped.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// addrPort is the address of a packet, or the zero AddrPort.
func addrPort(addr net.Addr) netip.AddrPort {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(plain(ap.Addr()), ap.Port())
}

// shardOf returns the shard of an address.
func (c *Controller) shardOf(addr netip.Addr) *shard {
	bits := c.siteBits(addr)
	if bits == 0 {
		bits = c.sourceBits(addr)
	}
	k := masked(addr, bits)
	return &c.shards[maphash.Bytes(c.seed, k[:])%uint64(len(c.shards))]
}

// lookup returns the source of an address, or nil if there is no room for it. The
// shard is locked.
func (c *Controller) lookup(sh *shard, addr netip.Addr, now instant) *source {
	k := masked(addr, c.sourceBits(addr))
	if s := sh.get(k, false, now); s != nil {
		return s
	}
	l, ok := c.overrides.Lookup(addr)
	if !ok {
		l = c.source
	}
	var site *source
	if bits := c.siteBits(addr); bits > 0 && !l.exempt {
		if site = c.lookupSite(sh, masked(addr, bits), now); site == nil {
			return nil
		}
		site.sources++ // so that it stays
		defer func() { site.sources-- }()
	}
	return sh.add(k, site, false, l, now)
}

func (c *Controller) lookupSite(sh *shard, k key, now instant) *source {
	if s := sh.get(k, true, now); s != nil {
		return s
	}
	return sh.add(k, nil, true, c.site, now)
}

// full says why a source can have no other connection, if it can't.
func (c *Controller) full(s *source, now instant) (Reason, bool) {
	if s != nil && s.limits.exempt {
		return PassNew, false
	}
	why, full := PassNew, false
	s.levels(func(l *level) bool {
		why, full = l.full(now)
		return !full
	})
	if full {
		return why, true
	}
	c.mu.Lock()
	why, full = c.total.full(now)
	c.mu.Unlock()
	switch {
	case !full:
		return PassNew, false
	case why == Connections:
		return TotalConnections, true
	}
	return TotalConnectionRate, true
}

// stageFull says whether there is no room for another attempt at a stage.
func (c *Controller) stageFull(s *source, st stage, now instant) bool {
	if st == stageLive || s != nil && s.limits.exempt {
		return false
	}
	of := func(l *level) bool {
		if st == stageProven {
			return l.provenFull(now)
		}
		return l.freshFull(now)
	}
	if !s.levels(func(l *level) bool { return !of(l) }) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return of(&c.total)
}

// WantsRetry says whether a newcomer has to show that packets reach its address
// before it may be admitted. It is what a [quic.Transport] calls as its
// VerifySourceAddress, and not if a valid token has shown that. An address that
// would be refused all the same is not asked.
func (c *Controller) WantsRetry(remote netip.AddrPort) bool {
	addr, now := plain(remote.Addr()), c.now()
	if c.lists.allows(addr, c.conf.Now) || c.lists.denies(addr, c.conf.Now) {
		return false
	}
	sh := c.shardOf(addr)
	sh.mu.Lock()
	want := c.wantsRetryLocked(sh, netip.AddrPortFrom(addr, remote.Port()), now)
	sh.mu.Unlock()
	if want {
		c.counters.retried.Add(1)
	}
	return want && !c.conf.DryRun
}

func (c *Controller) wantsRetryLocked(sh *shard, remote netip.AddrPort, now instant) bool {
	s := c.lookup(sh, remote.Addr(), now)
	if s != nil && s.limits.exempt || sh.refusals.has(remote, now) {
		return false
	}
	if _, full := c.full(s, now); full {
		return false
	}
	if c.conf.AlwaysRetry || c.stageFull(s, stageFresh, now) {
		return true
	}
	crowded := false
	s.levels(func(l *level) bool {
		crowded = l.taken()+l.half >= l.limits.retryFrom
		return !crowded
	})
	if crowded {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total.half >= c.total.limits.retryFrom
}

// Admit counts a newcomer, and returns its slot, which the caller must give back
// with [Slot.Release]; or a [RefusedError]. shown says that the address is known
// to be the sender's, as after a Retry or in TCP; if it is not, the slot is
// half open until [Slot.Established].
//
// It is for programs that count something else than the connections of a
// transport, which Protect takes care of.
func (c *Controller) Admit(remote netip.AddrPort, shown bool) (*Slot, error) {
	if shown {
		return c.admit(remote, stageLive, false)
	}
	return c.admit(remote, stageFresh, false)
}

// admit is Admit. attempts says that what is refused may be asked about again,
// though it is the same.
func (c *Controller) admit(remote netip.AddrPort, st stage, attempts bool) (*Slot, error) {
	remote = netip.AddrPortFrom(plain(remote.Addr()), remote.Port())
	now := c.now()
	sh := c.shardOf(remote.Addr())
	sh.mu.Lock()
	slot, s, why := c.admitLocked(sh, remote, st, attempts, now)
	e, due := c.noteLocked(s, remote.Addr(), Refuse, why, why != PassNew, now)
	turn := c.turnedAwayLocked(s, why, now)
	sh.mu.Unlock()
	if due {
		c.report(e)
	}
	if turn {
		c.turnAway(remote.Addr())
	}
	c.counters.attempt(why)
	if slot == nil {
		return nil, &RefusedError{c.Source(remote.Addr()), why}
	}
	if st != stageLive && !(attempts && c.listens.Load()) {
		slot.expire(c.conf.HandshakeTimeout)
	}
	return slot, nil
}

// admitLocked makes a slot if there is room, or if it is a dry run.
func (c *Controller) admitLocked(sh *shard, remote netip.AddrPort, st stage, attempts bool, now instant) (*Slot, *source, Reason) {
	addr := remote.Addr()
	s := c.lookup(sh, addr, now)
	allowed := c.lists.allows(addr, c.conf.Now)
	why := PassNew
	switch {
	case allowed:
	case c.lists.denies(addr, c.conf.Now):
		why = Denied
	case attempts && sh.refusals.has(remote, now):
		why = Repeated
	default:
		why = c.roomLocked(s, st, now)
	}
	if why != PassNew && !c.conf.DryRun {
		if attempts && why != Repeated {
			sh.refusals.put(remote, now)
		}
		return nil, s, why
	}
	slot := c.enterLocked(sh, s, remote, st, now)
	slot.exempt = allowed || c.conf.DryRun || s != nil && s.limits.exempt
	return slot, s, why
}

// roomLocked says why there is no room for an attempt. It never says so to one
// attempt because of another that is not let in either.
func (c *Controller) roomLocked(s *source, st stage, now instant) Reason {
	if why, full := c.full(s, now); full {
		return why
	}
	if c.stageFull(s, st, now) {
		return HalfOpen
	}
	return PassNew
}

// enterLocked takes a slot on all levels.
func (c *Controller) enterLocked(sh *shard, s *source, remote netip.AddrPort, st stage, now instant) *Slot {
	slot := &Slot{c: c, shard: sh, source: s, remote: remote, stage: st}
	s.levels(func(l *level) bool {
		l.enter(st, now)
		return true
	})
	c.mu.Lock()
	c.total.enter(st, now)
	c.mu.Unlock()
	if s != nil {
		s.admitted++
	}
	slot.linkLocked()
	return slot
}
