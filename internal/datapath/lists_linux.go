package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func (q *Quota) list(list List) *ebpf.Map {
	if list == AllowList {
		return q.p.objects.Allowed
	}
	return q.p.objects.Denied
}

// Put puts a prefix on a list for so long, or takes it off if that is 0 or less. It
// returns ErrFull if there is no room, even after what has expired is gone.
func (q *Quota) Put(list List, prefix netip.Prefix, ttl time.Duration) error {
	if err := q.lock(); err != nil {
		return err
	}
	defer q.p.mu.Unlock()
	key, until := prefixKey(prefix), uint64(0)
	if ttl > 0 {
		until = q.deadline(ttl)
	}
	var err error
	switch {
	case list == DenyList && q.isSource(prefix):
		err = q.denySourceLocked(&key, until)
	case until > 0:
		err = q.putRuleLocked(list, &key, until)
	default:
		err = q.list(list).Delete(&key)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("xdp: list %v: %w", prefix, err)
	}
	return nil
}

// putRuleLocked puts a prefix on a list, in the trie.
func (q *Quota) putRuleLocked(list List, key *datapathPrefix, until uint64) error {
	return errors.Join(q.useListLocked(list), q.putSwept(q.list(list), key, &datapathRule{Until: until, Bits: key.Bits}))
}

// useListLocked has a list looked at from now on.
func (q *Quota) useListLocked(list List) error {
	looks := &q.rules.Denies
	if list == AllowList {
		looks = &q.rules.Allows
	}
	if *looks == 1 {
		return nil
	}
	*looks = 1
	return q.putRulesLocked()
}

// Packets returns about how many packets have hit a prefix on a list.
func (q *Quota) Packets(list List, prefix netip.Prefix) (uint64, error) {
	if err := q.lock(); err != nil {
		return 0, err
	}
	defer q.p.mu.Unlock()
	key := prefixKey(prefix)
	if list == DenyList && q.isSource(prefix) {
		if n, ok, err := q.sourcePackets(&key); ok || err != nil {
			return n, err
		}
	}
	var r datapathRule
	err := q.list(list).Lookup(&key, &r)
	// What is returned for a prefix that is not there is that of a shorter one.
	if errors.Is(err, ebpf.ErrKeyNotExist) || r.Bits != key.Bits {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("xdp: read list entry %v: %w", prefix, err)
	}
	return r.Packets, nil
}

// full says so in our words.
func asErrFull(err error) error {
	// A trie says ENOSPC, a hash table E2BIG.
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) {
		return ErrFull
	}
	return err
}

// putSwept puts a verdict, which begins with its end, into a map. If that is full
// what has expired makes room.
func (q *Quota) putSwept(m *ebpf.Map, key, value any) error {
	err := asErrFull(m.Put(key, value))
	if !errors.Is(err, ErrFull) {
		return err
	}
	now := q.now()
	if err := deleteIf(m, func(value []byte) bool { return binary.NativeEndian.Uint64(value) <= now }); err != nil {
		return err
	}
	return asErrFull(m.Put(key, value))
}

// deleteIf deletes what is to go from a map.
func deleteIf(m *ebpf.Map, goes func(value []byte) bool) error {
	var key, value []byte
	var gone [][]byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if goes(value) {
			gone = append(gone, key)
			key = nil
		}
	}
	errs := []error{entries.Err()}
	for _, key := range gone {
		if err := m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
