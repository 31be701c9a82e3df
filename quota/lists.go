package quota

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// listEntry is an entry in use.
type listEntry struct {
	Entry
	hits atomic.Uint64 // packets that the filter has matched
}

func (e *listEntry) live(now time.Time) bool { return e.Expires.IsZero() || now.Before(e.Expires) }

// listTable maps the prefixes of one list to their entries. It is never changed once
// it is in use.
type listTable = bart.Table[*listEntry]

// lists are the deny list and the allow list. They are read without a lock: a change
// replaces a list's table.
type lists struct {
	now    func() time.Time
	max    int                                 // entries of each list
	tables [numLists]atomic.Pointer[listTable] // nil: empty

	mu sync.Mutex // held during changes
}

// find returns the longest entry for an address that has not expired, or nil.
func (l *lists) find(list List, addr netip.Addr) *listEntry {
	table := l.tables[list].Load()
	if table == nil {
		return nil
	}
	e, ok := table.Lookup(addr)
	if !ok {
		return nil
	}
	if e.Expires.IsZero() {
		return e
	}
	now := l.now()
	if e.live(now) {
		return e
	}
	// A shorter prefix may hold still.
	for _, e := range table.Supernets(netip.PrefixFrom(addr, addr.BitLen())) {
		if e.live(now) {
			return e
		}
	}
	return nil
}

func (l *lists) allows(addr netip.Addr) bool { return l.find(AllowList, addr) != nil }

func (l *lists) denies(addr netip.Addr) bool { return l.find(DenyList, addr) != nil }

// match reports whether a list has an entry for the address of a packet, and counts
// the packet.
func (l *lists) match(list List, addr netip.Addr) bool {
	e := l.find(list, addr)
	if e != nil {
		e.hits.Add(1)
	}
	return e != nil
}

// get returns the entry with exactly this prefix, or nil.
func (l *lists) get(list List, prefix netip.Prefix) *listEntry {
	table := l.tables[list].Load()
	if table == nil {
		return nil
	}
	e, _ := table.Get(prefix)
	return e
}

// count returns the number of entries of a list that have not expired.
func (l *lists) count(list List, now time.Time) (n int) {
	if table := l.tables[list].Load(); table != nil {
		for _, e := range table.All() {
			if e.live(now) {
				n++
			}
		}
	}
	return n
}

// put adds an entry. It replaces the entry with the same prefix, if there is one.
func (l *lists) put(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := l.tables[e.List].Load()
	if table == nil {
		table = new(listTable)
	}
	if _, exists := table.Get(e.Prefix); !exists && table.Size() >= l.max {
		if table = l.unexpiredLocked(e.List, l.now()); table.Size() >= l.max {
			return fmt.Errorf("%v list: %w: it has %d entries", e.List, ErrFull, l.max)
		}
	}
	l.storeLocked(e.List, table.InsertPersist(e.Prefix, &listEntry{Entry: e}))
	return nil
}

// remove removes the entry with exactly this prefix, and reports whether there was one.
func (l *lists) remove(list List, prefix netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.get(list, prefix) == nil {
		return false
	}
	l.storeLocked(list, l.tables[list].Load().DeletePersist(prefix))
	return true
}

// storeLocked replaces the table of a list.
func (l *lists) storeLocked(list List, table *listTable) {
	if table.Size() == 0 {
		table = nil
	}
	l.tables[list].Store(table)
}

// unexpiredLocked returns a copy of a list's table without the entries that have
// expired.
func (l *lists) unexpiredLocked(list List, now time.Time) *listTable {
	out := new(listTable)
	if old := l.tables[list].Load(); old != nil {
		for prefix, e := range old.All() {
			if e.live(now) {
				out.Insert(prefix, e)
			}
		}
	}
	return out
}

// entryID identifies an entry.
type entryID struct {
	list   List
	prefix netip.Prefix
}

// replaceFile replaces the entries that are from a file by others. An entry that was
// made at run time stays, and wins over one of the file with the same prefix. If there
// is an error nothing changes.
func (l *lists) replaceFile(name string, entries []Entry) (added, gone []Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var tables [numLists]*listTable
	old := make(map[entryID]*listEntry)
	for list := range numLists {
		tables[list] = l.unexpiredLocked(list, now)
		for _, e := range tables[list].All() {
			if e.File == name {
				old[entryID{list, e.Prefix}] = e
			}
		}
	}
	for id := range old {
		tables[id.list].Delete(id.prefix)
	}
	for _, e := range entries {
		table, id := tables[e.List], entryID{e.List, e.Prefix}
		if _, exists := table.Get(e.Prefix); exists {
			continue
		}
		entry := &listEntry{Entry: e}
		if was := old[id]; was != nil {
			entry.hits.Store(was.hits.Load())
			delete(old, id)
		}
		table.Insert(e.Prefix, entry)
		added = append(added, e)
		if table.Size() > l.max {
			return nil, nil, fmt.Errorf("%v list: %w: it may have %d entries", e.List, ErrFull, l.max)
		}
	}
	for list, table := range tables {
		l.storeLocked(List(list), table)
	}
	for _, e := range old {
		gone = append(gone, e.Entry)
	}
	return added, gone, nil
}
