package quota

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/xdp"
)

// TestConfigErrors checks that errors name the invalid field.
func TestConfigErrors(t *testing.T) {
	prefix := netip.MustParsePrefix
	for want, conf := range map[string]*Config{
		"IPv4Bits is 33":                                                  {IPv4Bits: 33},
		"IPv6Bits is -1":                                                  {IPv6Bits: -1},
		"IPv4SiteBits is 33":                                              {IPv4SiteBits: 33},
		"IPv6SiteBits is 65":                                              {IPv6SiteBits: 65},
		"Excess is retry":                                                 {Excess: Retry},
		"HandshakeTimeout is -1ns":                                        {HandshakeTimeout: -1},
		"HandshakeTimeout is 2562047h47m16.8":                             {HandshakeTimeout: math.MaxInt64},
		"MaxSources is -1":                                                {MaxSources: -1},
		"MaxEntries is -1":                                                {MaxEntries: -1},
		"Source.PacketRate is not a number":                               {Source: Limits{PacketRate: math.NaN()}},
		"Source.AttemptBurst is -1":                                       {Source: Limits{AttemptBurst: -1}},
		"Site.ConnectionRate is not a number":                             {Site: Limits{ConnectionRate: math.NaN()}},
		"Total.RequestBurst is -2":                                        {Total: Limits{RequestBurst: -2}},
		"ConnectionRequestRate is not a number":                           {ConnectionRequestRate: math.NaN()},
		"ConnectionRequestBurst is -1":                                    {ConnectionRequestBurst: -1},
		"Overrides[0]: invalid prefix":                                    {Overrides: []Override{{}}},
		"Overrides[0]: 2001:db8::1/128":                                   {Overrides: []Override{{Prefix: prefix("2001:db8::1/128"), Exempt: true}}},
		"Overrides[0]: 192.0.2.0/25":                                      {IPv4Bits: 24, Overrides: []Override{{Prefix: prefix("192.0.2.0/25")}}},
		"Overrides[1]: 192.0.2.0/24":                                      {Overrides: []Override{{Prefix: prefix("192.0.2.0/24")}, {Prefix: prefix("192.0.2.1/24")}}},
		"Source.RequestBurst is 5, but its rate is no limit":              {Source: Limits{RequestBurst: 5}},
		"Total.ConnectionBurst is 9, but its rate is no limit":            {Total: Limits{ConnectionBurst: 9}},
		"ConnectionRequestBurst is 3, but its rate is no limit":           {ConnectionRequestBurst: 3},
		"SourceOf and XDP are both set":                                   {SourceOf: clientBehind, XDP: new(xdp.Program)},
		"Overrides[0]: Shared and Exempt":                                 {Overrides: []Override{{Prefix: prefix("::/0"), Shared: true, Exempt: true}}},
		"Overrides[0].Limits.RequestBurst is 5, but its rate is no limit": {Overrides: []Override{{Prefix: prefix("::/0"), Limits: Limits{RequestBurst: 5}}}},
		"Overrides[0].Limits.AttemptBurst is 5, but its rate is no limit": {Overrides: []Override{{Prefix: prefix("::/0"), Shared: true, Limits: Limits{AttemptBurst: 5}}}},
		"Overrides[0].Limits.PacketBurst is -1":                           {Overrides: []Override{{Prefix: prefix("::/0"), Limits: Limits{PacketBurst: -1}}}},
	} {
		if _, err := New(conf); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ErrConfig with %q", err, want)
		}
	}
}

// TestConfigExtremes checks that a client gets in with extreme but valid values.
func TestConfigExtremes(t *testing.T) {
	inf := math.Inf(1)
	for name, conf := range map[string]*Config{
		"nil":  nil,
		"zero": {},
		"no limits": {
			Source: Limits{Connections: -1, HalfOpen: -1, ConnectionRate: -1, AttemptRate: -1, PacketRate: -1, RequestRate: -1},
			Site:   Limits{Connections: math.MinInt, HalfOpen: -1, ConnectionRate: -inf, AttemptRate: -1},
			Total:  Limits{Connections: -1, HalfOpen: -1}, RetryHalfOpen: -1, RetrySource: -1,
			IPv4SiteBits: -1, IPv6SiteBits: -1,
		},
		"as much as there is": {
			Source: Limits{Connections: math.MaxInt, HalfOpen: math.MaxInt, ConnectionRate: inf, ConnectionBurst: math.MaxInt, AttemptRate: math.MaxFloat64, PacketRate: inf, RequestRate: inf, RequestBurst: math.MaxInt},
			Total:  Limits{Connections: math.MaxInt, HalfOpen: math.MaxInt}, RetryHalfOpen: math.MaxInt, RetrySource: math.MaxInt,
			MaxSources: math.MaxInt, MaxEntries: math.MaxInt, HandshakeTimeout: time.Hour,
		},
		"as much again":         {Source: Limits{Connections: math.MaxInt/4 + 1, HalfOpen: math.MaxInt/4 + 1}},
		"as little as there is": {Source: Limits{Connections: 1, HalfOpen: 1, ConnectionRate: math.SmallestNonzeroFloat64, AttemptRate: 1e-9, PacketRate: 1e-9, RequestRate: 1e-9}, MaxSources: 2, MaxEntries: 1},
		"no room to remember":   {MaxSources: 1},
		"all is one source":     {IPv4Bits: 1, IPv6Bits: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := mustNew(t, conf)
			for _, from := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
				f := &filter{c: c, idLen: 4}
				if pass, why := f.decide(addr(from), attempt(1), c.clock.now()); !pass || why != PassNew {
					t.Errorf("%s: pass %v, %v", from, pass, why)
				}
				if c.WantsRetry(addr(from)) {
					t.Errorf("%s gets a Retry", from)
				}
				slot := wantAdmit(t, c, from, false, PassNew)
				if slot == nil || !slot.Established() {
					t.Fatalf("%s has no room", from)
				}
				if wait := c.Request(addr(from).Addr()); wait != 0 {
					t.Errorf("%s has to wait for %v", from, wait)
				}
				slot.Release()
			}
			wantLive(t, c, 0, 0)
		})
	}
}

func TestSource(t *testing.T) {
	c := mustNew(t, nil)
	for from, want := range map[string]string{
		"fe80::1%eth0":     "fe80::/64",
		"::ffff:192.0.2.1": "192.0.2.1/32",
		"192.0.2.1":        "192.0.2.1/32",
	} {
		if got := c.Source(netip.MustParseAddr(from)).String(); got != want {
			t.Errorf("source of %s is %s, want %s", from, got, want)
		}
	}
	if got := c.Source(netip.Addr{}); got.IsValid() {
		t.Errorf("source of no address is %v", got)
	}
}
