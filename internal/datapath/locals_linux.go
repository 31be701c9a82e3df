package datapath

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// localTable is the addresses of the relay, each with a number by which legs refer to it: the map
// in bpf/common.h. An address is changed only while no leg refers to it. Number 0 is none.
type localTable struct {
	memory  mappedMemory
	locals  []datapathLocal
	users   []uint32 // of each address: how often legs refer to it
	numbers map[netip.AddrPort]uint8
}

func newLocalTable(m *ebpf.Map) (t localTable, err error) {
	memory, commons, err := mapMemory[datapathCommon](m)
	if err != nil {
		return localTable{}, err
	}
	t.memory, t.locals = memory, commons[0].Local[:]
	t.users = make([]uint32, len(t.locals))
	t.numbers = make(map[netip.AddrPort]uint8)
	return t, nil
}

// adopt counts a leg that an earlier process has left. The leg counts also if the number has no address, so
// that no other leg gets the number.
func (t *localTable) adopt(number uint8) {
	if number == 0 {
		return
	}
	t.users[number]++
	if a := t.address(number); a.IsValid() {
		t.numbers[a] = number
	}
}

// acquire returns the numbers of two addresses, each for two legs. It returns ErrFull if there is
// no room.
func (t *localTable) acquire(a, b netip.AddrPort) (numbers [2]uint8, err error) {
	for i, address := range [2]netip.AddrPort{a, b} {
		number := t.number(netip.AddrPortFrom(address.Addr().WithZone(""), address.Port()))
		if number == 0 {
			t.release(numbers[0])
			t.release(numbers[0])
			return [2]uint8{}, fmt.Errorf("%w: more than %d addresses of the relay", ErrFull, len(t.locals)-1)
		}
		t.users[number] += 2
		numbers[i] = number
	}
	return numbers, nil
}

// number returns the number of an address, or 0 if there is no room for it.
func (t *localTable) number(a netip.AddrPort) uint8 {
	if number, ok := t.numbers[a]; ok {
		return number
	}
	for number := 1; number < len(t.locals); number++ {
		if t.users[number] == 0 {
			l := &t.locals[number]
			storeAddr(&l.Addr, a.Addr())
			storePair(&l.Port, swapped(a.Port()), familyOf(a.Addr()))
			t.numbers[a] = uint8(number)
			return uint8(number)
		}
	}
	return 0
}

// release ends that a leg refers to an address.
func (t *localTable) release(number uint8) {
	if number == 0 || t.users[number] == 0 {
		return
	}
	if t.users[number]--; t.users[number] == 0 {
		delete(t.numbers, t.address(number))
	}
}

// address returns the address with a number. It is not valid if there is none.
func (t *localTable) address(number uint8) netip.AddrPort {
	l := &t.locals[number]
	if l.Family == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(readAddr(&l.Addr, l.Family), swapped(l.Port))
}
