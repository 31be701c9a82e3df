package datapath

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// onProcessor runs f on one processor.
func onProcessor(t *testing.T, n int, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with the goroutine
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

// processorsHere are those that this process may use.
func processorsHere(t *testing.T) (all []int) {
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

// TestTablesHoldWhatTheyShould: a table holds as many entries as are asked for,
// whichever processor makes them.
func TestTablesHoldWhatTheyShould(t *testing.T) {
	const wanted = 100
	p := mustLoad(t, &Config{Stages: []Stage{QuotaStage, MonitorStage}, Flows: wanted, Sources: wanted, Attempts: wanted})
	for name, table := range map[string]*ebpf.Map{
		"flows": p.objects.Flows, "buckets": p.objects.Buckets, "origins": p.objects.Origins,
	} {
		key, value := make([]byte, table.KeySize()), make([]byte, table.ValueSize())
		processors := processorsHere(t)
		for i := range wanted {
			// The first entry is one processor's, the others are in turns all others'.
			processor := processors[0]
			if i > 0 && len(processors) > 1 {
				processor = processors[1+i%(len(processors)-1)]
			}
			onProcessor(t, processor, func() {
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
