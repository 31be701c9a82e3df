package quota

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// Controller limits who may open connections, how many, and how fast. Make one with
// [New]. It may serve any number of transports, which then share its limits. All
// methods may be called concurrently.
type Controller struct {
	conf        *Config
	log         *slog.Logger
	clock       clock
	lists       *lists
	sources     *sourceTable
	total       *total
	counters    *counters
	enforcement *enforcement
	reporter    *reporter
	rates       *rates
	admission   *admission
	sockets     socketSet
	routes      routeSet
}

// New makes a Controller. A nil cfg is the zero Config. An error wraps [ErrConfig] or,
// with [Config].XDP, an error of package xdp.
func New(cfg *Config) (*Controller, error) {
	conf := cfg.withDefaults()
	if err := conf.validate(); err != nil {
		return nil, err
	}
	c := &Controller{conf: conf, log: conf.Logger, clock: newClock(conf.Now), counters: &counters{}}
	c.lists = &lists{now: conf.Now, max: conf.MaxEntries}
	c.sources = newSourceTable(conf)
	c.total = &total{level: level{limits: compile(conf.Total, conf.RetryHalfOpen)}}
	c.enforcement = &enforcement{conf: conf, clock: c.clock, lists: c.lists, sources: c.sources, enforcer: noEnforcer{}}
	c.reporter = &reporter{
		clock: c.clock, log: c.log, dryRun: conf.DryRun,
		sources: c.sources, enforcement: c.enforcement, counters: c.counters,
	}
	c.rates = &rates{
		clock: c.clock, lists: c.lists, sources: c.sources, total: c.total, reporter: c.reporter,
		limitsPackets: c.sources.limitsPackets(),
		perConnection: newRate(conf.ConnectionRequestRate, conf.ConnectionRequestBurst),
	}
	c.admission = &admission{
		conf: conf, clock: c.clock, lists: c.lists, sources: c.sources, total: c.total,
		reporter: c.reporter, counters: c.counters,
	}
	if conf.XDP != nil && !conf.DryRun {
		kernel, err := newKernelEnforcer(conf.XDP.Datapath(), c.sources, c.log, c.reporter.kernelDropped)
		if err != nil {
			return nil, fmt.Errorf("quota: %w", err)
		}
		c.enforcement.enforcer = kernel
	}
	return c, nil
}

// Source returns the source that a client's address belongs to, as the prefix that limits
// are kept for: what [Controller.Deny] takes to deny the source. It returns the zero Prefix if
// addr is not valid. [Config].SourceOf is not asked, since it maps to such an address.
func (c *Controller) Source(addr netip.Addr) netip.Prefix { return c.sources.of(plain(addr)) }

// WantsRetry reports whether a client has to validate its address by a Retry before
// it may be admitted. [Controller.Transport] asks it, unless a valid token has validated the
// address. It returns false for an address that would be refused anyway.
func (c *Controller) WantsRetry(remote netip.AddrPort) bool {
	return c.admission.wantsRetry(plainPort(remote))
}

// Admit counts a connection from an address, and returns its slot, which the caller
// must give back with [Slot.Release]. If there is no room it returns a [RefusedError].
// validated says that the address is known to be the peer's, as it is after a Retry or
// in TCP. If it is false, the slot is half open until [Slot.Established] is called, or
// for [Config].HandshakeTimeout.
//
// Admit is for programs that limit something other than the connections of quic-go. For
// those, use [Controller.Transport].
func (c *Controller) Admit(remote netip.AddrPort, validated bool) (*Slot, error) {
	if validated {
		return c.admission.admit(plainPort(remote), stageLive, false)
	}
	return c.admission.admit(plainPort(remote), stageUnvalidated, false)
}

// Close gives the quota stage of [Config].XDP back: the kernel drops nothing for this
// controller any more. Without XDP it does nothing. The controller still decides, in Go
// alone. Close may be called more than once.
func (c *Controller) Close() error {
	if err := c.enforcement.enforcer.close(); err != nil {
		return fmt.Errorf("quota: close: %w", err)
	}
	return nil
}

// plain returns an address without its zone, and as IPv4 if it is IPv4 mapped into
// IPv6. For the address of a relay's tunnel it returns the source of the tunnel's client.
func plain(addr netip.Addr) netip.Addr { return tunnel.Source(addr.Unmap().WithZone("")) }

func plainPort(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(plain(a.Addr()), a.Port()) }

// addrPort returns the plain address and port of a *net.UDPAddr, or the zero AddrPort.
func addrPort(addr net.Addr) netip.AddrPort { return plainPort(udp.AddrPort(addr)) }
