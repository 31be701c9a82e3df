package p2p

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/quicway/quicway/internal/netmon"
)

// What an address of this host is worth to a peer. What comes first is told; of the
// rest there may be more than a peer takes.
const (
	worthMapped = iota // by the gateway; after what the relay has seen
	worthUplink
	worthPlain
	worthInner // of a network that ends within this host
	worthSpare // of many that one interface has
)

// eachInterface is how many addresses of one family an interface may have before
// further ones are spare ones.
const eachInterface = 3

// rankedAddr is an address to tell, and what decides when.
type rankedAddr struct {
	candidate
	worth int
	iface string
}

// rankedHost is an address of an interface of this host.
func rankedHost(a netmon.Address, port uint16) rankedAddr {
	r := rankedAddr{candidate{HostCandidate, netip.AddrPortFrom(a.Addr, port)}, worthPlain, a.Interface}
	switch a.Role {
	case netmon.Uplink:
		r.worth = worthUplink
	case netmon.Inner:
		r.worth = worthInner
	}
	return r
}

// byWorth orders addresses by their worth, and has the families take turns where that
// is the same.
func byWorth(all []rankedAddr) []candidate {
	type family struct {
		iface string
		is4   bool
	}
	seen := make(map[family]int)
	for i := range all {
		a := &all[i]
		of := family{a.iface, a.addr.Addr().Is4()}
		if seen[of]++; a.kind == HostCandidate && a.iface != "" && seen[of] > eachInterface {
			a.worth = worthSpare
		}
	}
	slices.SortStableFunc(all, func(a, b rankedAddr) int { return cmp.Compare(a.worth, b.worth) })
	var out []candidate
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(a rankedAddr) bool { return a.worth != all[0].worth })
		if n < 0 {
			n = len(all)
		}
		out = append(out, mixed(all[:n])...)
		all = all[n:]
	}
	return out
}

// mixed has the families take turns.
func mixed(all []rankedAddr) []candidate {
	var of [2][]candidate
	for _, a := range all {
		i := 0
		if a.addr.Addr().Is4() {
			i = 1
		}
		of[i] = append(of[i], a.candidate)
	}
	var out []candidate
	for i := range max(len(of[0]), len(of[1])) {
		for _, addrs := range of {
			if i < len(addrs) {
				out = append(out, addrs[i])
			}
		}
	}
	return out
}
