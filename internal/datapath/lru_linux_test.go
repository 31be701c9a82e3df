package datapath

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// onCPU runs f on one CPU.
func onCPU(t *testing.T, n int, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var set unix.CPUSet
		set.Set(n)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// availableCPUs returns the CPUs that this process may use.
func availableCPUs(t *testing.T) (all []int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for n := range 64 * len(set) {
		if set.IsSet(n) {
			all = append(all, n)
		}
	}
	return all
}

// TestMapsHoldWantedEntries checks that an LRU map holds the configured number of entries,
// whichever CPUs add them.
func TestMapsHoldWantedEntries(t *testing.T) {
	const wanted = 100
	p := mustLoad(t, &Config{Stages: []Stage{QuotaStage, MonitorStage}, Flows: newFlows * wanted, Sources: wanted, Attempts: wanted})
	for name, table := range map[string]*ebpf.Map{
		"flows": p.objects.Flows, "buckets": p.objects.Buckets, "origins": p.objects.Origins,
	} {
		key, value := make([]byte, table.KeySize()), make([]byte, table.ValueSize())
		cpus := availableCPUs(t)
		for i := range wanted {
			// One CPU adds the first entry, and the others add the rest in turns.
			cpu := cpus[0]
			if i > 0 && len(cpus) > 1 {
				cpu = cpus[1+i%(len(cpus)-1)]
			}
			onCPU(t, cpu, func() {
				key[0] = byte(i)
				if err := table.Put(key, value); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range wanted {
			key[0] = byte(i)
			if err := table.Lookup(key, value); err != nil {
				t.Errorf("%s: entry %d of %d: %v", name, i, wanted, err)
				break
			}
		}
	}
}
