package datapath

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// deniedSlots is how many places a denied source may have.
const deniedSlots = len(datapathDeniedSet{}.Source)

// deniedSets is how many sets of places there are for so many prefixes.
func deniedSets(prefixes int) uint32 {
	return uint32(1) << bits.Len(uint(prefixes-1)/uint(deniedSlots))
}

// isSource says whether a prefix is one source, for as long as the policy says what
// that is.
func (q *Quota) isSource(prefix netip.Prefix) bool {
	if q.p.noPerfmon {
		return false
	}
	if prefix.Addr().Is4() {
		return prefix.Bits() == q.sourceBits[0]
	}
	return prefix.Bits() == q.sourceBits[1]
}

// findDenied returns where a host may be, and in which place it is, or else may be: -1
// if there is none.
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

// putSourceLocked denies a source, or denies it no longer if until is 0. It returns
// false if it has no place.
func (q *Quota) putSourceLocked(key *datapathPrefix, until uint64) (ok bool, err error) {
	index, set, at, err := q.findDenied(key)
	if at < 0 || err != nil {
		return false, err
	}
	if set.Source[at].Addr != key.Addr {
		// The program may see a part of what is written: it must not be an
		// end with another's address.
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

// denySourceLocked is [Quota.Put] of a source on the deny list, which is in one place
// only: it may have been in the trie while it had none here.
func (q *Quota) denySourceLocked(key *datapathPrefix, until uint64) error {
	ok, err := q.putSourceLocked(key, until)
	if err != nil {
		return err
	}
	if until > 0 && !ok {
		return q.putRuleLocked(DenyList, key, until)
	}
	if q.rules.Denies == 0 {
		return nil // there is nothing in the trie
	}
	return q.p.objects.Denied.Delete(key)
}

// sourcePackets is how many packets have hit a host.
func (q *Quota) sourcePackets(key *datapathPrefix) (n uint64, ok bool, err error) {
	_, set, at, err := q.findDenied(key)
	if at < 0 || err != nil || set.Source[at].Addr != key.Addr {
		return 0, false, err
	}
	return set.Packets[at], true, nil
}

// forgetSources is a part of Close.
func (q *Quota) forgetSources() error {
	for index := range q.usedSets {
		if err := q.p.objects.DeniedSources.Put(index, &datapathDeniedSet{}); err != nil {
			return fmt.Errorf("forget hosts: %w", err)
		}
	}
	return nil
}
