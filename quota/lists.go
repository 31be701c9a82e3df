package quota

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// List is one of the two lists of a [Controller].
type List uint8

// The lists. What is on both is allowed.
const (
	// DenyList is who is not let in, and dropped without an answer.
	DenyList List = iota
	// AllowList is who is let in without regard to any limit.
	AllowList

	numLists
)

var listNames = [numLists]string{DenyList: "deny", AllowList: "allow"}

// String returns "deny" or "allow".
func (l List) String() string {
	if l < numLists {
		return listNames[l]
	}
	return fmt.Sprintf("list %d", uint8(l))
}

// Entry is a prefix on a list.
type Entry struct {
	List   List
	Prefix netip.Prefix
	// Reason is for people.
	Reason string
	// Expires is when the entry goes by itself. Zero: never.
	Expires time.Time
	// End has what is connected from a denied prefix ended when the entry
	// comes, too, and not only dropped.
	End bool
	// File is the file that the entry is from ([Controller.LoadFile]); empty if
	// it was made at run time.
	File string
	// Packets counts the packets that have hit the entry. [Controller.Add]
	// ignores it.
	Packets uint64
}

// record is an entry in use.
type record struct {
	Entry
	hits atomic.Uint64
}

func (r *record) live(now time.Time) bool { return r.Expires.IsZero() || now.Before(r.Expires) }

// lists are read without a lock, and replaced by others when they change.
type lists struct {
	max    int
	tables [numLists]atomic.Pointer[bart.Table[*record]] // nil: empty

	mu sync.Mutex // taken to change them
}

// find returns the longest entry for an address that has not expired.
func (l *lists) find(list List, addr netip.Addr, clock func() time.Time) *record {
	table := l.tables[list].Load()
	if table == nil {
		return nil
	}
	r, ok := table.Lookup(addr)
	if !ok {
		return nil
	}
	if r.Expires.IsZero() {
		return r
	}
	now := clock()
	if r.live(now) {
		return r
	}
	// A shorter one may be behind it.
	for _, r := range table.Supernets(netip.PrefixFrom(addr, addr.BitLen())) {
		if r.live(now) {
			return r
		}
	}
	return nil
}

func (l *lists) allows(addr netip.Addr, clock func() time.Time) bool {
	return l.find(AllowList, addr, clock) != nil
}

func (l *lists) denies(addr netip.Addr, clock func() time.Time) bool {
	return l.find(DenyList, addr, clock) != nil
}

// hit counts a packet.
func (l *lists) hit(list List, addr netip.Addr, clock func() time.Time) bool {
	r := l.find(list, addr, clock)
	if r != nil {
		r.hits.Add(1)
	}
	return r != nil
}

// swept returns a copy of a list without what has expired. l.mu is held.
func (l *lists) sweptLocked(list List, now time.Time) *bart.Table[*record] {
	out := new(bart.Table[*record])
	if old := l.tables[list].Load(); old != nil {
		for prefix, r := range old.All() {
			if r.live(now) {
				out.Insert(prefix, r)
			}
		}
	}
	return out
}

// put adds an entry, or replaces the one with its prefix.
func (l *lists) put(e Entry, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := l.tables[e.List].Load()
	if table == nil {
		table = new(bart.Table[*record])
	}
	if _, there := table.Get(e.Prefix); !there && table.Size() >= l.max {
		if table = l.sweptLocked(e.List, now); table.Size() >= l.max {
			return fmt.Errorf("%v list: %w: it has %d entries", e.List, ErrFull, l.max)
		}
	}
	l.tables[e.List].Store(table.InsertPersist(e.Prefix, &record{Entry: e}))
	return nil
}

// get returns the entry with exactly this prefix, or nil.
func (l *lists) get(list List, prefix netip.Prefix) *record {
	table := l.tables[list].Load()
	if table == nil {
		return nil
	}
	r, _ := table.Get(prefix)
	return r
}

func (l *lists) remove(list List, prefix netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	table := l.tables[list].Load()
	if table == nil {
		return false
	}
	if _, there := table.Get(prefix); !there {
		return false
	}
	table = table.DeletePersist(prefix)
	if table.Size() == 0 {
		table = nil
	}
	l.tables[list].Store(table)
	return true
}

// count is how many entries a list has that have not expired.
func (l *lists) count(list List, now time.Time) (n int) {
	if table := l.tables[list].Load(); table != nil {
		for _, r := range table.All() {
			if r.live(now) {
				n++
			}
		}
	}
	return n
}

// listPrefix is a prefix as lists hold it: without the bits beyond its length, and
// of IPv4 if it is that mapped into IPv6.
func listPrefix(p netip.Prefix) (netip.Prefix, error) {
	addr, bits := p.Addr(), p.Bits()
	switch {
	case !p.IsValid():
		return netip.Prefix{}, fmt.Errorf("%w: it is empty", ErrPrefix)
	case addr.Is4In6() && bits < 96:
		return netip.Prefix{}, fmt.Errorf("%w: %v is neither IPv4 nor IPv6", ErrPrefix, p)
	case addr.Is4In6():
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits).Masked(), nil
}

// Add puts an entry on its list, in place of the one with the same prefix, if
// any. Prefixes may overlap: an address is on a list if any entry says so. Returns
// an error that wraps ErrPrefix or ErrFull.
func (c *Controller) Add(e Entry) error {
	prefix, err := listPrefix(e.Prefix)
	if err != nil {
		return err
	}
	if e.List >= numLists {
		return fmt.Errorf("%w: there is no %v", ErrPrefix, e.List)
	}
	e.Prefix, e.File, e.Packets = prefix, "", 0
	if err := c.lists.put(e, c.conf.Now()); err != nil {
		return err
	}
	c.listed(e)
	return nil
}

// listed does what follows from a new entry.
func (c *Controller) listed(e Entry) {
	c.enforce(e.List, e.Prefix)
	ended := c.endListed([]Entry{e})
	c.log.Info("listed", "list", e.List, "prefix", e.Prefix, "expires", e.Expires, "reason", e.Reason, "ended", ended)
}

// farFuture stands for no end where there must be one.
const farFuture = 100 * 365 * 24 * time.Hour

// enforce tells the enforcer what there is of an entry. It is told one entry after
// the other, each as it is by then, so that the last word is true whoever has
// changed it meanwhile.
func (c *Controller) enforce(list List, prefix netip.Prefix) {
	if c.conf.DryRun {
		return
	}
	c.enforcing.Lock()
	defer c.enforcing.Unlock()
	ttl := time.Duration(0)
	if r := c.lists.get(list, prefix); r != nil {
		ttl = farFuture
		if !r.Expires.IsZero() {
			ttl = min(r.Expires.Sub(c.conf.Now()), farFuture)
		}
	}
	if list == AllowList {
		c.enforcer.allow(prefix, max(ttl, 0))
	} else {
		c.enforcer.deny(prefix, max(ttl, 0))
	}
}

// Deny has everything from a prefix dropped, for a time; a ttl of 0 means until it
// is removed, and a negative one is an error, as those of [Controller.Add] are.
// Connections that exist time out: to end them at once, use [Controller.Add] with
// [Entry].End, or [Controller.End] afterwards.
func (c *Controller) Deny(prefix netip.Prefix, ttl time.Duration, reason string) error {
	return c.addFor(Entry{List: DenyList, Prefix: prefix, Reason: reason}, ttl)
}

// Allow lets a prefix in without regard to any limit or the deny list, for a time;
// a ttl of 0 means until it is removed. What it has counts, and uses up what its
// site and all together may have. Returns the errors of [Controller.Deny].
func (c *Controller) Allow(prefix netip.Prefix, ttl time.Duration, reason string) error {
	return c.addFor(Entry{List: AllowList, Prefix: prefix, Reason: reason}, ttl)
}

// addFor adds an entry for a time.
func (c *Controller) addFor(e Entry, ttl time.Duration) error {
	switch {
	case ttl < 0:
		return fmt.Errorf("%v %v: ttl is %v, want 0 or more", e.List, e.Prefix, ttl)
	case ttl > 0:
		e.Expires = c.conf.Now().Add(ttl)
	}
	return c.Add(e)
}

// Remove takes exactly this prefix from a list, and says whether it was there.
func (c *Controller) Remove(list List, prefix netip.Prefix) bool {
	prefix, err := listPrefix(prefix)
	if err != nil || list >= numLists || !c.lists.remove(list, prefix) {
		return false
	}
	c.enforce(list, prefix)
	c.log.Info("removed from list", "list", list, "prefix", prefix)
	return true
}

// Entries yields the entries of both lists that have not expired, in the order of
// their prefixes, as they were when it began.
func (c *Controller) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		now := c.conf.Now()
		for list := range numLists {
			table := c.lists.tables[list].Load()
			if table == nil {
				continue
			}
			for _, r := range table.AllSorted() {
				if !r.live(now) {
					continue
				}
				e := r.Entry
				e.Packets = r.hits.Load() + c.enforcer.packets(list, e.Prefix)
				if !yield(e) {
					return
				}
			}
		}
	}
}

// replaceFile puts entries in place of those that were from the same file. An
// entry that was made at run time stays, whatever the file says of its prefix.
func (l *lists) replaceFile(name string, entries []Entry, now time.Time) (added, gone []Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tables [numLists]*bart.Table[*record]
	old := make(map[placed]*record)
	for list := range numLists {
		tables[list] = l.sweptLocked(list, now)
		for _, r := range slices.Collect(values(tables[list])) {
			if r.File == name {
				old[placed{list, r.Prefix}] = r
				tables[list].Delete(r.Prefix)
			}
		}
	}
	for _, e := range entries {
		table, at := tables[e.List], placed{e.List, e.Prefix}
		if _, there := table.Get(e.Prefix); there {
			continue
		}
		r := &record{Entry: e}
		if was := old[at]; was != nil {
			r.hits.Store(was.hits.Load())
			delete(old, at)
		}
		table.Insert(e.Prefix, r)
		added = append(added, e)
		if table.Size() > l.max {
			return nil, nil, fmt.Errorf("%v list: %w: it may have %d entries", e.List, ErrFull, l.max)
		}
	}
	for list, table := range tables {
		if table.Size() == 0 {
			table = nil
		}
		l.tables[list].Store(table)
	}
	for _, r := range old {
		gone = append(gone, r.Entry)
	}
	return added, gone, nil
}

// placed says which entry is meant.
type placed struct {
	list   List
	prefix netip.Prefix
}

func values(t *bart.Table[*record]) iter.Seq[*record] {
	return func(yield func(*record) bool) {
		for _, r := range t.All() {
			if !yield(r) {
				return
			}
		}
	}
}
