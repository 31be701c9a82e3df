package datapath

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// deniedSlots is the number of slots in a set of the table of denied sources: see bpf/rules.h.
const deniedSlots = len(datapathDeniedSet{}.Source)

// deniedSets returns the number of sets for a number of prefixes: a power of 2.
func deniedSets(prefixes int) uint32 {
	return uint32(1) << bits.Len(uint(prefixes-1)/uint(deniedSlots))
}

// isSource says whether a prefix is exactly one source, so that it belongs in the table. A program
// without CAP_PERFMON has no table.
func (q *Quota) isSource(prefix netip.Prefix) bool {
	if q.p.noPerfmon {
		return false
	}
	if prefix.Addr().Is4() {
		return prefix.Bits() == q.sourceBits[0]
	}
	return prefix.Bits() == q.sourceBits[1]
}

// findDenied returns the set that a source belongs to, and the slot at which it is. If the source
// is not there, at is a slot that is free or has expired, or -1 if the set is full.
func (q *Quota) findDenied(key *datapathPrefix) (index uint32, set datapathDeniedSet, at int, err error) {
	var hash uint64
	for i, word := range key.Addr {
		hash += uint64(word) * q.p.hashKeys[i]
	}
	index = uint32(hash>>32) & (q.p.objects.DeniedSources.MaxEntries() - 1)
	if err = q.p.objects.DeniedSources.Lookup(index, &set); err != nil {
		return 0, set, -1, err
	}
	now := q.now()
	at = -1
	for i := range set.Source {
		if set.Until[i] > now && set.Source[i].Addr == key.Addr {
			return index, set, i, nil
		}
		if set.Until[i] <= now {
			at = i
		}
	}
	return index, set, at, nil
}

// putSourceLocked denies a source in the table, or no longer if until is 0. It returns false if the
// set is full.
func (q *Quota) putSourceLocked(key *datapathPrefix, until uint64) (ok bool, err error) {
	index, set, at, err := q.findDenied(key)
	if at < 0 || err != nil {
		return false, err
	}
	if set.Source[at].Addr != key.Addr {
		// The program may read a partial write. Writing the address without a time first
		// makes sure that it never reads the new time with the old address.
		set.Source[at].Addr, set.Until[at] = key.Addr, 0
		if err := q.p.objects.DeniedSources.Put(index, &set); err != nil {
			return false, err
		}
	}
	set.Until[at], set.Packets[at] = until, 0
	q.usedSets[index] = struct{}{}
	if err := q.p.objects.DeniedSources.Put(index, &set); err != nil || q.rules.Sources == 1 {
		return true, err
	}
	q.rules.Sources = 1
	return true, q.putRulesLocked()
}

// denySourceLocked is [Quota.Put] of a source on the deny list. The source is in the trie if its
// set is full. When it moves to the table, it is removed from the trie.
func (q *Quota) denySourceLocked(key *datapathPrefix, until uint64) error {
	ok, err := q.putSourceLocked(key, until)
	if err != nil {
		return err
	}
	if until > 0 && !ok {
		return q.putRuleLocked(DenyList, key, until)
	}
	if q.rules.Denies == 0 {
		return nil // the trie is empty
	}
	return q.p.objects.Denied.Delete(key)
}

// sourcePackets returns how many packets have matched a source of the table, and whether it is
// there.
func (q *Quota) sourcePackets(key *datapathPrefix) (n uint64, ok bool, err error) {
	_, set, at, err := q.findDenied(key)
	if at < 0 || err != nil || set.Source[at].Addr != key.Addr {
		return 0, false, err
	}
	return set.Packets[at], true, nil
}

// forgetSources empties the table.
func (q *Quota) forgetSources() error {
	for index := range q.usedSets {
		if err := q.p.objects.DeniedSources.Put(index, &datapathDeniedSet{}); err != nil {
			return fmt.Errorf("forget denied sources: %w", err)
		}
	}
	return nil
}
