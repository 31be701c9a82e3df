package relay

import "slices"

// shares counts the offers in a box or a mailbox by account and by sender, and chooses
// the one to evict when there is no room.
type shares struct {
	total, bytes int
	accounts     map[accountTag]int
	senders      map[sender][]*offer // oldest first
}

func newShares() shares {
	return shares{accounts: make(map[accountTag]int), senders: make(map[sender][]*offer)}
}

func (c *shares) add(o *offer) {
	c.total++
	c.bytes += len(o.text)
	c.accounts[o.from.account]++
	c.senders[o.from] = append(c.senders[o.from], o)
}

func (c *shares) remove(o *offer) {
	all := c.senders[o.from]
	i := slices.Index(all, o)
	if i < 0 {
		return
	}
	c.total--
	c.bytes -= len(o.text)
	if c.accounts[o.from.account]--; c.accounts[o.from.account] == 0 {
		delete(c.accounts, o.from.account)
	}
	if c.senders[o.from] = slices.Delete(all, i, i+1); len(c.senders[o.from]) == 0 {
		delete(c.senders, o.from)
	}
}

// victim returns the offer to remove for a new one: the latest offer of the sender that
// has most, within the account that has most. The new offer counts as the newcomer's.
// victim returns nil if nobody has more than the newcomer then, because otherwise two
// senders could evict each other's offers for ever.
func (c *shares) victim(newcomer sender) *offer {
	account, most := newcomer.account, c.accounts[newcomer.account]+1
	for a, n := range c.accounts {
		if n > most {
			account, most = a, n
		}
	}
	from, most := newcomer, 0
	if account == newcomer.account {
		most = len(c.senders[newcomer]) + 1
	}
	for s, offers := range c.senders {
		if s.account == account && len(offers) > most {
			from, most = s, len(offers)
		}
	}
	if from == newcomer {
		return nil
	}
	return c.senders[from][len(c.senders[from])-1]
}
