package amplify

// account is what is known of an address.
type account struct {
	tag    uint64
	credit int64     // bytes that may go there
	told   [2]uint64 // the latest IDs that it was told in long headers
	named  [4]uint64 // a Bloom filter of the IDs that it has named itself in them
	used   uint32    // when, by the shard's clock
	next   uint8     // of told, the one to be replaced
	asked  bool      // it has begun a handshake
	dialed bool      // it was this side that did
	proven bool      // it is validated
}

// pay takes from the credit if there is enough.
func (a *account) pay(size int) bool {
	if a.credit < int64(size) {
		return false
	}
	a.credit -= int64(size)
	return true
}

// hear takes note of the Destination Connection ID that the address has sent.
func (a *account) hear(id uint64, long bool) {
	switch {
	case a.knows(id):
		a.proven = true
	case long:
		a.name(id)
		a.asked = a.asked || !a.dialed
	}
}

// learn remembers an ID that the address is told, unless it may be one that it has
// named itself: a server refuses a connection, or a version, under the ID that the
// client has drawn, which is no secret then (RFC 9000 §5.2.2 and §17.2.1).
func (a *account) learn(id uint64) {
	if word, bit := nameBit(id); a.knows(id) || a.named[word]&bit != 0 {
		return
	}
	a.told[a.next] = id
	a.next = (a.next + 1) % uint8(len(a.told))
}

// name remembers an ID that the address has named.
func (a *account) name(id uint64) {
	word, bit := nameBit(id)
	a.named[word] |= bit
}

func nameBit(id uint64) (word int, bit uint64) { return int(id >> 6 & 3), 1 << (id & 63) }

// knows says whether the address was told an ID.
func (a *account) knows(id uint64) bool { return a.told[0] == id || a.told[1] == id }

// The table of a shard: so many sets of accounts, and so many in each.
const (
	sets = 256
	ways = 4
)

// find returns the account of an address, or nil.
func (sh *shard) find(tag uint64) *account {
	if p := sh.pinned[tag]; p != nil {
		return &p.account
	}
	if sh.table == nil {
		return nil
	}
	set := sh.set(tag)
	for i := range set {
		if set[i].tag == tag {
			sh.clock++
			set[i].used = sh.clock
			return &set[i]
		}
	}
	return nil
}

func (sh *shard) set(tag uint64) []account {
	at := tag / shardCount % sets * ways
	return sh.table[at : at+ways]
}

// add makes an account, in the place of the one that is worth least.
func (sh *shard) add(tag uint64) *account {
	if sh.table == nil {
		sh.table = make([]account, sets*ways)
	}
	set := sh.set(tag)
	least := &set[0]
	for i := range set[1:] {
		if a := &set[1+i]; sh.lesser(a, least) {
			least = a
		}
	}
	sh.clock++
	*least = account{tag: tag, used: sh.clock}
	return least
}

// lesser says whether an account is rather to be forgotten than another: one that is
// not validated, and then the one that was used longer ago.
func (sh *shard) lesser(a, than *account) bool {
	if a.proven != than.proven {
		return than.proven
	}
	return sh.clock-a.used > sh.clock-than.used
}

// pin is the account of an address that has connections, or handshakes. It stays as
// long as they do.
type pin struct {
	account
	users int
}

// pin gives an address an account that stays, until unpin is called as often.
func (l *Limit) pin(tag uint64, proven bool) {
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.pinned[tag]
	if p == nil {
		p = &pin{account: account{tag: tag}}
		if a := sh.find(tag); a != nil {
			p.account = *a
			*a = account{}
		}
		if sh.pinned == nil {
			sh.pinned = make(map[uint64]*pin)
		}
		sh.pinned[tag] = p
	}
	p.users++
	p.proven = p.proven || proven
}

func (l *Limit) unpin(tag uint64) {
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.pinned[tag]
	if p.users--; p.users == 0 {
		delete(sh.pinned, tag)
	}
}

// proven says whether an address is validated.
func (l *Limit) proven(tag uint64) bool {
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := sh.find(tag)
	return a != nil && a.proven
}
