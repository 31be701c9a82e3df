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

// list returns the map of a list.
func (q *Quota) list(list List) *ebpf.Map {
	if list == AllowList {
		return q.p.objects.Allowed
	}
	return q.p.objects.Denied
}

// Put puts a prefix on a list for the time ttl, or removes it if ttl is 0 or less. It returns
// ErrFull if there is no room after expired prefixes were removed.
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

// putRuleLocked puts a prefix into the trie of a list.
func (q *Quota) putRuleLocked(list List, key *datapathPrefix, until uint64) error {
	return errors.Join(q.useListLocked(list), q.putSwept(q.list(list), key, &datapathRule{Until: until, Bits: key.Bits}))
}

// useListLocked makes the program look up addresses in a list.
func (q *Quota) useListLocked(list List) error {
	used := &q.rules.Denies
	if list == AllowList {
		used = &q.rules.Allows
	}
	if *used == 1 {
		return nil
	}
	*used = 1
	return q.putRulesLocked()
}

// Packets returns approximately how many packets have matched a prefix on a list.
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
	// A lookup of a prefix that is not there returns the entry of a shorter one.
	if errors.Is(err, ebpf.ErrKeyNotExist) || r.Bits != key.Bits {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("xdp: read list entry %v: %w", prefix, err)
	}
	return r.Packets, nil
}

// asErrFull returns ErrFull if the error says that a map is full, and otherwise the error.
func asErrFull(err error) error {
	// A trie returns ENOSPC, a hash table E2BIG.
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) {
		return ErrFull
	}
	return err
}

// putSwept puts a value into a map. The value begins with its time of expiry. If the map is full,
// putSwept removes expired values first.
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

// deleteIf deletes the entries of a map for whose value expired returns true.
func deleteIf(m *ebpf.Map, expired func(value []byte) bool) error {
	var key, value []byte
	var keys [][]byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if expired(value) {
			keys = append(keys, key)
			key = nil // so that Next allocates another one
		}
	}
	errs := []error{entries.Err()}
	for _, key := range keys {
		if err := m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
