package datapath

import (
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mappedMemory is the memory of an array that Go shares with the program. nil: none.
type mappedMemory []byte

// mapMemory maps the memory of an array with values of type T, which must be as large as those of the
// array, and whose size is a multiple of eight bytes.
func mapMemory[T any](m *ebpf.Map) (mappedMemory, []T, error) {
	size := int(m.MaxEntries()) * int(m.ValueSize())
	page := os.Getpagesize()
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return b, unsafe.Slice((*T)(unsafe.Pointer(&b[0])), m.MaxEntries()), nil
}

func (b mappedMemory) close() error {
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// inOrder says whether the processor does loads in their order, so that the program needs no barriers
// between them: read_fence in bpf/fence.h.
func inOrder() bool {
	switch runtime.GOARCH {
	case "amd64", "386", "s390x":
		return true
	}
	return false
}
