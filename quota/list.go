package quota

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
)

// List is one of the two lists of a [Controller].
type List uint8

// The lists. An address on both lists is allowed.
const (
	// DenyList holds prefixes whose packets are dropped without an answer.
	DenyList List = iota
	// AllowList holds prefixes that are let in without regard to any limit.
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

// MarshalText returns the name.
func (l List) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText parses a name.
func (l *List) UnmarshalText(text []byte) error {
	i := slices.Index(listNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown list %q: want deny or allow", text)
	}
	*l = List(i)
	return nil
}

// Entry is a prefix on a list. The JSON names stay. Later versions may add fields.
type Entry struct {
	// List is the list that the entry is on.
	List List `json:"list"`
	// Prefix is the prefix of the addresses that the entry is for, of any length.
	Prefix netip.Prefix `json:"prefix"`
	// Reason is a text for operators. The package does not use it.
	Reason string `json:"reason,omitempty"`
	// Expires is when the entry expires. The zero time means never.
	Expires time.Time `json:"expires,omitzero"`
	// End closes existing connections from a denied prefix when the entry is added, but not
	// those of addresses that the allow list has. Without it their packets are dropped, and
	// they time out.
	End bool `json:"end,omitempty"`
	// File is the name of the file that the entry was loaded from
	// ([Controller.LoadFile]), or empty if it was added at run time.
	// [Controller.Add] ignores it.
	File string `json:"file,omitempty"`
	// Packets is the number of packets that have matched the entry.
	// [Controller.Add] ignores it.
	Packets uint64 `json:"packets"`
}

// Add puts an entry on its list. It replaces the entry with the same prefix, if there
// is one. Prefixes may overlap: an address is on a list if any entry matches it. An
// error wraps [ErrPrefix] or [ErrFull].
func (c *Controller) Add(e Entry) error {
	prefix, err := plainPrefix(e.Prefix)
	if err != nil {
		return err
	}
	if e.List >= numLists {
		return fmt.Errorf("%w: there is no %v", ErrPrefix, e.List)
	}
	e.Prefix, e.File, e.Packets = prefix, "", 0
	if err := c.lists.put(e); err != nil {
		return err
	}
	c.enforcement.updateEntry(e.List, e.Prefix)
	ended := c.endDenied([]Entry{e})
	c.log.Info("listed", "list", e.List, "prefix", e.Prefix, "expires", e.Expires, "reason", e.Reason, "ended", ended)
	return nil
}

// Deny drops all packets from a prefix for ttl, or until the entry is removed if ttl
// is 0. A negative ttl is an error; other errors are those of [Controller.Add].
// Existing connections from the prefix time out. To close them at once, call
// [Controller.Add] with [Entry].End, or [Controller.End] afterwards.
func (c *Controller) Deny(prefix netip.Prefix, ttl time.Duration, reason string) error {
	return c.addFor(Entry{List: DenyList, Prefix: prefix, Reason: reason}, ttl)
}

// Allow lets a prefix in without regard to any limit or the deny list for ttl, or until
// the entry is removed if ttl is 0. Its connections still count, and use up what its
// site and all sources together may have. The errors are those of [Controller.Deny].
func (c *Controller) Allow(prefix netip.Prefix, ttl time.Duration, reason string) error {
	return c.addFor(Entry{List: AllowList, Prefix: prefix, Reason: reason}, ttl)
}

// addFor adds an entry that expires after ttl, or never if ttl is 0.
func (c *Controller) addFor(e Entry, ttl time.Duration) error {
	switch {
	case ttl < 0:
		return fmt.Errorf("%v %v: ttl is %v, want 0 or more", e.List, e.Prefix, ttl)
	case ttl > 0:
		e.Expires = c.conf.Now().Add(ttl)
	}
	return c.Add(e)
}

// Remove removes the entry with exactly this prefix from a list, and reports whether
// there was one.
func (c *Controller) Remove(list List, prefix netip.Prefix) bool {
	prefix, err := plainPrefix(prefix)
	if err != nil || list >= numLists || !c.lists.remove(list, prefix) {
		return false
	}
	c.enforcement.updateEntry(list, prefix)
	c.log.Info("removed from list", "list", list, "prefix", prefix)
	return true
}

// Entries yields the entries of both lists that have not expired, in the order of
// their prefixes. Changes during the iteration may not be seen.
func (c *Controller) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		now := c.conf.Now()
		for list := range numLists {
			table := c.lists.tables[list].Load()
			if table == nil {
				continue
			}
			for _, entry := range table.AllSorted() {
				if !entry.live(now) {
					continue
				}
				e := entry.Entry
				e.Packets = entry.hits.Load() + c.enforcement.enforcer.packets(list, e.Prefix)
				if !yield(e) {
					return
				}
			}
		}
	}
}

// End ends the connections that were admitted from a prefix, including those in their
// handshake, and returns their number. It does not keep new ones out: see
// [Controller.Deny]. See [Slot.OnEnd] for how connections are ended.
func (c *Controller) End(prefix netip.Prefix) int {
	prefix, err := plainPrefix(prefix)
	if err != nil {
		return 0
	}
	return c.sources.end(prefix.Contains)
}

// endDenied ends the connections from those new entries that have End set. Addresses on the
// allow list are not denied.
func (c *Controller) endDenied(added []Entry) (ended int) {
	var prefixes bart.Lite
	for _, e := range added {
		if e.End && e.List == DenyList {
			prefixes.Insert(e.Prefix)
		}
	}
	if c.conf.DryRun || prefixes.Size() == 0 {
		return 0
	}
	return c.sources.end(func(addr netip.Addr) bool { return prefixes.Contains(addr) && !c.lists.allows(addr) })
}
