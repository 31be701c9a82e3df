package capture

import (
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets of the protocol fields of IPv4 and IPv6 after any link layer, and TCP's number.
const (
	network         = 1<<32 - 0x100000 // SKF_NET_OFF
	offsetProtocol4 = network + 9
	offsetNext6     = network + 6
	protoTCP        = 6
	wholePacket     = 0x40000
)

// filter accepts the packets of interfaces, or of all if there are no indexes, but not TCP,
// which most of a host's packets are.
func filter(indexes []int) []bpf.Instruction {
	var out []bpf.Instruction
	if len(indexes) > 0 {
		out = append(out, bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
		for i, index := range indexes {
			out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(index), SkipTrue: uint8(len(indexes) - i)})
		}
		out = append(out, bpf.RetConstant{Val: 0})
	}
	return append(out,
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 2},
		bpf.LoadAbsolute{Off: offsetProtocol4, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoTCP, SkipTrue: 3, SkipFalse: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipFalse: 3},
		bpf.LoadAbsolute{Off: offsetNext6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoTCP, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: wholePacket},
	)
}

// attachFilter attaches the filter to a socket.
func attachFilter(fd int, indexes []int) error {
	raw, err := bpf.Assemble(filter(indexes))
	if err != nil {
		return err
	}
	// bpf.RawInstruction and unix.SockFilter have the same layout.
	code := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&raw[0])), len(raw))
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}
