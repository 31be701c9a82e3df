package datapath

import "github.com/cilium/ebpf"

// lruFreeTarget is how many entries of an LRU map each processor sets aside for itself
// (LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c).
const lruFreeTarget = 128

// lruEntries is how large an LRU map has to be to hold so many entries. Before Linux
// 6.16, a processor that finds nothing left evicts an entry, even if others have set
// aside more than there are in use.
func lruEntries(wanted int) (uint32, error) {
	processors, err := ebpf.PossibleCPU()
	return uint32(wanted + lruFreeTarget*processors), err
}
