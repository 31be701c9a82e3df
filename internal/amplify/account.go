package amplify

// account is the state of an address.
type account struct {
	tag       uint64
	credit    int64     // bytes that may be sent to the address
	sent      [2]uint64 // hashes of the latest Source Connection IDs sent to it in long headers
	chosen    [4]uint64 // a Bloom filter of the IDs that it has chosen itself for long headers
	used      uint32    // time of the last use, by the shard's clock
	next      uint8     // the index in sent to replace next
	asked     bool      // the address has begun a handshake
	dialed    bool      // this endpoint has begun a handshake with the address
	validated bool
}

// pay takes from the credit, if there is enough.
func (a *account) pay(size int) bool {
	if a.credit < int64(size) {
		return false
	}
	a.credit -= int64(size)
	return true
}

// receive handles the Destination Connection ID of a packet from the address.
func (a *account) receive(id uint64, long bool) {
	switch {
	case a.knows(id):
		a.validated = true
	case long:
		a.choose(id)
		a.asked = a.asked || !a.dialed
	}
}

// send remembers a Source Connection ID that is sent to the address, unless it may be one that the
// address has chosen itself: a server refuses a connection or a version with the client's own ID
// as its Source Connection ID, so that the ID is not a secret (RFC 9000 §5.2.2 and §17.2.1).
func (a *account) send(id uint64) {
	if word, bit := chosenBit(id); a.knows(id) || a.chosen[word]&bit != 0 {
		return
	}
	a.sent[a.next] = id
	a.next = (a.next + 1) % uint8(len(a.sent))
}

// choose remembers an ID that the address has chosen.
func (a *account) choose(id uint64) {
	word, bit := chosenBit(id)
	a.chosen[word] |= bit
}

func chosenBit(id uint64) (word int, bit uint64) { return int(id >> 6 & 3), 1 << (id & 63) }

// knows says whether an ID was sent to the address.
func (a *account) knows(id uint64) bool { return a.sent[0] == id || a.sent[1] == id }

// The table of a shard is set-associative, like a cache: an address belongs to one set.
const (
	sets       = 256
	setEntries = 4 // accounts in a set
)

// find returns the account of an address, or nil if there is none.
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
	at := tag / shardCount % sets * setEntries
	return sh.table[at : at+setEntries]
}

// add makes an account. It replaces the least valuable account of the set.
func (sh *shard) add(tag uint64) *account {
	if sh.table == nil {
		sh.table = make([]account, sets*setEntries)
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

// lesser says whether an account is less valuable than another: if it is not validated and the
// other is, or else if it was used longer ago.
func (sh *shard) lesser(a, than *account) bool {
	if a.validated != than.validated {
		return than.validated
	}
	return sh.clock-a.used > sh.clock-than.used
}

// pin is the account of an address with connections or handshakes. It is kept as long as there are
// any.
type pin struct {
	account
	users int
}

// pin keeps the account of an address until unpin has been called as often as pin.
func (l *Limit) pin(tag uint64, validated bool) {
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
	p.validated = p.validated || validated
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

// validated says whether an address is validated.
func (l *Limit) validated(tag uint64) bool {
	sh := l.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a := sh.find(tag)
	return a != nil && a.validated
}
