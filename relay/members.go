package relay

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// The names of members are looked up again each lookupPeriod, and a look-up may take
// lookupTimeout.
const (
	lookupPeriod  = 5 * time.Minute
	lookupTimeout = 10 * time.Second
	// maxAddresses bounds the addresses of one name.
	maxAddresses = 16
)

// members are the relays that the server knows: itself and others.
type members struct {
	self   control.Member // without Draining
	pin    string         // of the server itself, which it need not tell: clients have connected by it
	name   string
	id     string // of this server, random; clients compare it
	log    *slog.Logger
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	sent   atomic.Uint64 // requests that were refused in favour of another member

	list    atomic.Pointer[memberList]
	changed chan struct{} // has an element if names should be looked up

	mu     sync.Mutex  // guards changes of list
	leaves atomic.Bool // the server drains
}

// memberList is one state of the other relays. It is never changed.
type memberList struct {
	others []control.Member
	hosts  map[string][]netip.Addr           // of their names, as looked up last
	at     map[netip.AddrPort]control.Member // by the addresses that are known
}

// newMembers makes the members of a configuration. Its Members have been checked.
func newMembers(conf *Config) *members {
	m := &members{
		self:    control.Member{Addr: conf.Advertise, Zone: conf.Zone},
		name:    conf.Name,
		id:      crand.Text(),
		log:     conf.Logger,
		lookup:  net.DefaultResolver.LookupNetIP,
		changed: make(chan struct{}, 1),
	}
	m.list.Store(&memberList{})
	return m
}

// set replaces the other relays.
func (m *members) set(list []Member) error {
	others, err := checkMembers(list, m.name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.list.Store(newMemberList(others, m.list.Load().hosts))
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

// newMemberList makes a list, with the addresses of hosts that are known.
func newMemberList(others []control.Member, known map[string][]netip.Addr) *memberList {
	l := &memberList{others: others, hosts: make(map[string][]netip.Addr), at: make(map[netip.AddrPort]control.Member)}
	for _, o := range others {
		if addr, ok := literal(o.Addr); ok {
			l.at[addr] = o
			continue
		}
		host, port := hostPort(o.Addr)
		l.hosts[host] = known[host]
		for _, a := range known[host] {
			l.at[netip.AddrPortFrom(a.Unmap(), port)] = o
		}
	}
	return l
}

// hostPort splits an address that has been checked.
func hostPort(addr string) (string, uint16) {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.ParseUint(port, 10, 16)
	return host, uint16(n)
}

// watch looks up the names of members until ctx is done. An address that cannot be looked
// up any more stays what it was.
func (m *members) watch(ctx context.Context) {
	ticker := time.NewTicker(lookupPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		case <-ticker.C:
		}
		for host := range m.list.Load().hosts {
			m.lookUp(ctx, host)
		}
	}
}

func (m *members) lookUp(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := m.lookup(ctx, "ip", host)
	if err != nil {
		m.log.Warn("the address of a member is not known", "host", host, "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.list.Load()
	hosts := map[string][]netip.Addr{host: addrs[:min(len(addrs), maxAddresses)]}
	for other, at := range now.hosts {
		if other != host {
			hosts[other] = at
		}
	}
	m.list.Store(newMemberList(now.others, hosts))
}

// at returns the member at an address, or false if none is known to be there.
func (m *members) at(addr netip.AddrPort) (control.Member, bool) {
	member, ok := m.list.Load().at[netip.AddrPortFrom(addr.Addr().WithZone(""), addr.Port())]
	return member, ok
}

// is says whether a client has shown the key of a member, by its TLS certificate.
func (m *members) is(member control.Member, c *client) bool {
	pin := member.Pin
	if pin == "" {
		pin = m.pin
	}
	id, err := pki.PeerKeyID(c.conn.ConnectionState().TLS)
	return err == nil && pin != "" && id.String() == pin
}

// drain makes the server take no new sessions.
func (m *members) drain() { m.leaves.Store(true) }

func (m *members) draining() bool { return m.leaves.Load() }

// own is the server itself, as it is now.
func (m *members) own() control.Member {
	self := m.self
	self.Draining = m.draining()
	return self
}

// advertised is the server itself, or the zero Member if it advertises no address.
func (m *members) advertised() control.Member {
	if m.self.Addr == "" {
		return control.Member{}
	}
	return m.own()
}

// all returns all relays, the server itself first.
func (m *members) all() control.Relays {
	return control.Relays{Relays: append([]control.Member{m.own()}, m.others()...)}
}

// others returns the other relays, those of the server's zone first, and else in an order
// that differs from call to call, so that clients spread.
func (m *members) others() []control.Member {
	others := m.list.Load().others
	var near, far []control.Member
	for _, i := range rand.Perm(len(others)) {
		if others[i].Zone == m.self.Zone {
			near = append(near, others[i])
		} else {
			far = append(far, others[i])
		}
	}
	return append(near, far...)
}

// shutdown is the event by which clients learn that the server drains.
func (m *members) shutdown() control.Event {
	return control.Event{Type: control.EventShutdown, Relays: m.others()}
}

// elsewhere is the refusal of a session that another relay may take, or, if no other is
// known, why it is refused. Both ends of a session are sent to the same relay, of the
// server's zone if there is one.
func (m *members) elsewhere(id control.SessionID, why error) error {
	var best *control.Member
	var most uint64
	others := m.list.Load().others
	for i := range others {
		o := &others[i]
		near := o.Zone == m.self.Zone
		if best != nil && !near && best.Zone == m.self.Zone {
			continue
		}
		if n := weight(id, o.Addr); best == nil || n > most || near && best.Zone != m.self.Zone {
			best, most = o, n
		}
	}
	if best == nil {
		return why
	}
	m.sent.Add(1)
	return &elsewhereError{why: why, relay: *best}
}

// weight orders the relays for a session (rendezvous hashing): if one is added or removed,
// few sessions are sent to another one than before.
func weight(id control.SessionID, addr string) uint64 {
	sum := sha256.Sum256(append(id[:], addr...))
	return binary.BigEndian.Uint64(sum[:])
}
