package datapath

import "github.com/cilium/ebpf"

// lruFreeTarget is the number of entries of an LRU map that each CPU reserves for itself
// (LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c).
const lruFreeTarget = 128

// lruEntries returns the size of an LRU map that can hold the wanted number of entries. Before
// Linux 6.16, a CPU that finds no free entry evicts one, even if other CPUs have reserved free
// entries.
func lruEntries(wanted int) (uint32, error) {
	cpus, err := ebpf.PossibleCPU()
	return uint32(wanted + lruFreeTarget*cpus), err
}
