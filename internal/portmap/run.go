package portmap

import (
	"context"
	"sync"
	"time"
)

// run renews the mapping before half of its lifetime has passed (RFC 6887 §11.2.1). While
// there is none, it tries again, less and less often.
func (m *Mapper) run() {
	defer close(m.done)
	defer close(m.changes)
	retry := firstRetry
	for m.ctx.Err() == nil {
		wait := retry
		if l := m.renew(); l != nil {
			wait, retry = max(time.Until(l.expires)*2/5, minRenewal), firstRetry
		} else {
			retry = min(2*retry, lastRetry)
		}
		m.attempt.Do(func() { close(m.tried) })
		select {
		case <-m.ctx.Done():
		case <-m.refresh:
		case <-time.After(wait):
		}
	}
	m.release()
}

// renew renews the mapping by the protocol that has made it, or else tries all protocols. A
// mapping that cannot be renewed is kept until it expires.
func (m *Mapper) renew() *lease {
	ctx, cancel := context.WithTimeout(m.ctx, m.conf.Timeout)
	defer cancel()
	r := request{port: m.port, lifetime: m.conf.Lifetime, nonce: m.nonce}
	var err error
	if r.gateway, r.local, err = m.conf.Gateway(); err != nil {
		return m.set(nil)
	}
	m.mu.Lock()
	old := m.lease
	m.mu.Unlock()
	if old != nil && old.request.gateway == r.gateway && old.request.local == r.local {
		r.external = old.External
		if l := ask(ctx, old.protocol, r); l != nil {
			return m.set(l)
		}
		ctx, cancel = context.WithTimeout(m.ctx, m.conf.Timeout)
		defer cancel()
	} else {
		old = nil
	}
	l := m.race(ctx, r)
	if l == nil && old != nil && time.Now().Before(old.expires) {
		l = old
	}
	return m.set(l)
}

// race asks by all protocols, and returns the first valid answer. Mappings that other
// protocols have made meanwhile are left to expire: a gateway with several protocols has
// one table, so that deleting one mapping of the port may delete the winner's. A UPnP
// mapping is deleted, because it has another external port and may never expire.
func (m *Mapper) race(ctx context.Context, r request) *lease {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leases := make(chan *lease, len(m.conf.protocols))
	var tasks sync.WaitGroup
	for _, p := range m.conf.protocols {
		tasks.Go(func() {
			if l := ask(ctx, p, r); l != nil {
				cancel()
				leases <- l
			}
		})
	}
	tasks.Wait()
	close(leases)
	won := <-leases
	for lost := range leases {
		if lost.Protocol == UPnP && lost.External != won.External {
			m.giveBack(lost)
		}
	}
	return won
}

func ask(ctx context.Context, p protocol, r request) *lease {
	mapping, err := p(ctx, r)
	mapping.Lifetime = min(mapping.Lifetime, r.lifetime)
	if err != nil || !mapping.good() {
		return nil
	}
	return &lease{Mapping: mapping, expires: time.Now().Add(mapping.Lifetime), protocol: p, request: r}
}

// set makes l the lease. nil means that there is none.
func (m *Mapper) set(l *lease) *lease {
	m.mu.Lock()
	old := m.lease
	m.lease = l
	m.mu.Unlock()
	if l == nil && old == nil || l != nil && old != nil && l.External == old.External {
		return l
	}
	select {
	case m.changes <- struct{}{}:
	default: // an unread value stands for this change as well
	}
	return l
}

// release deletes the mapping.
func (m *Mapper) release() {
	m.mu.Lock()
	l := m.lease
	m.lease = nil
	m.mu.Unlock()
	if l != nil {
		m.giveBack(l)
	}
}

func (m *Mapper) giveBack(l *lease) {
	ctx, cancel := context.WithTimeout(context.Background(), m.conf.Timeout)
	defer cancel()
	r := l.request
	r.external, r.lifetime = l.External, 0
	_, _ = l.protocol(ctx, r) // without an answer the mapping expires
}
