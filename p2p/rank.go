package p2p

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/quicway/quicway/internal/netmon"
)

// The ranks of this host's addresses. Those of the first ranks are told to the peer, which
// takes only maxCandidates. The address that the relay sees comes before all of them.
const (
	rankMapped = iota // a port that the gateway forwards
	rankUplink        // of an interface with a default route
	rankPlain
	rankInner // of a network within this host
	rankSpare // more than perInterface of one interface
)

// perInterface is how many addresses of one family an interface may have before further
// ones are spare.
const perInterface = 3

// rankedAddr is an address of this host and its rank.
type rankedAddr struct {
	candidate
	rank  int
	iface string
}

// rankedHost returns an address of an interface with its rank.
func rankedHost(a netmon.Address, port uint16) rankedAddr {
	r := rankedAddr{candidate{HostCandidate, netip.AddrPortFrom(a.Addr, port)}, rankPlain, a.Interface}
	switch a.Role {
	case netmon.Uplink:
		r.rank = rankUplink
	case netmon.Inner:
		r.rank = rankInner
	}
	return r
}

// byRank sorts addresses by rank. Within a rank, IPv6 and IPv4 alternate.
func byRank(all []rankedAddr) []candidate {
	type family struct {
		iface string
		is4   bool
	}
	seen := make(map[family]int)
	for i := range all {
		a := &all[i]
		of := family{a.iface, a.addr.Addr().Is4()}
		if seen[of]++; a.kind == HostCandidate && a.iface != "" && seen[of] > perInterface {
			a.rank = rankSpare
		}
	}
	slices.SortStableFunc(all, func(a, b rankedAddr) int { return cmp.Compare(a.rank, b.rank) })
	var out []candidate
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(a rankedAddr) bool { return a.rank != all[0].rank })
		if n < 0 {
			n = len(all)
		}
		out = append(out, alternate(all[:n])...)
		all = all[n:]
	}
	return out
}

// alternate lets IPv6 and IPv4 alternate.
func alternate(all []rankedAddr) []candidate {
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
