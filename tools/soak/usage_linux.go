package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// usage is the use of resources of the process, and of the kernel on its behalf.
type usage struct {
	goroutines, descriptors, heap int
	store                         int // IDs that the relay's store has
	routes, sessions              int // in the kernel's maps
}

// measure measures the usage while no relay runs.
func (s *stage) measure() (u usage, err error) {
	s.store.Expire()
	runtime.GC()
	debug.FreeOSMemory() // a second collection frees what pools had kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, err
	}
	u = usage{
		goroutines:  runtime.NumGoroutine(),
		descriptors: len(open),
		heap:        int(m.HeapAlloc),
		store:       s.store.Len(),
	}
	if s.program == nil {
		return u, nil
	}
	kernel, err := s.program.Datapath().Relay()
	if err != nil {
		return u, err
	}
	for range kernel.Routes() {
		u.routes++
	}
	for i := range kernel.Sessions() {
		legs, err := kernel.Session(i)
		if err != nil {
			return u, err
		}
		if legs[0].Valid() || legs[1].Valid() {
			u.sessions++
		}
	}
	return u, nil
}

// describe records the stacks of goroutines and the targets of file descriptors that are
// left.
func (s *stage) describe() error {
	if s.after.goroutines > s.before.goroutines {
		stacks := make([]byte, 4<<20)
		s.evidence = append(s.evidence, string(stacks[:runtime.Stack(stacks, true)]))
	}
	if s.after.descriptors <= s.before.descriptors {
		return nil
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	var names []string
	for _, f := range open {
		name, err := os.Readlink("/proc/self/fd/" + f.Name())
		if err != nil {
			continue // the descriptor of this listing
		}
		names = append(names, fmt.Sprintf("%s -> %s", f.Name(), name))
	}
	slices.Sort(names)
	s.evidence = append(s.evidence, strings.Join(names, "\n"))
	return nil
}
