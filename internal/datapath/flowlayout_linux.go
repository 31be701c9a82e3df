package datapath

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// pairOf and keyOf convert between the endpoints of a flow and struct pair in bpf/flows.h.
func pairOf(k FlowKey) (p datapathPair) {
	end := func(addr *[4]uint32, port *uint16, e netip.AddrPort) {
		ip := e.Addr().As16()
		for i := range addr {
			addr[i] = binary.NativeEndian.Uint32(ip[4*i:])
		}
		*port = swapped(e.Port())
	}
	end(&p.A, &p.A_port, k.A)
	end(&p.B, &p.B_port, k.B)
	return p
}

func keyOf(p *datapathPair) FlowKey {
	end := func(addr *[4]uint32, port uint16) netip.AddrPort {
		var ip [16]byte
		for i, word := range addr {
			binary.NativeEndian.PutUint32(ip[4*i:], word)
		}
		return netip.AddrPortFrom(netip.AddrFrom16(ip).Unmap(), swapped(port))
	}
	return FlowKey{end(&p.A, p.A_port), end(&p.B, p.B_port)}
}

// swapped converts a port from and to network byte order.
func swapped(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// time and mono convert between wall clock and monotonic clock, in nanoseconds. 0 is the zero
// Time.
func (v *Monitor) time(mono uint64) time.Time {
	if mono == 0 {
		return time.Time{}
	}
	return time.Unix(0, v.started+int64(mono))
}

// last converts a time of the program's clock, as Direction.Last has it. 0 is the zero Time.
func (v *Monitor) last(at uint64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, v.started+v.ahead.Load()+int64(at))
}

func (v *Monitor) mono(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixNano()-v.started, 1))
}

func (v *Monitor) flow(f *datapathFlow) Flow {
	out := Flow{Born: f.Born, Ignored: f.Ignored != 0}
	for i := range f.Direction {
		d, s := &f.Direction[i], &f.Direction[i].Spin
		out.Directions[i] = Direction{
			Matched:    Tally{d.Matched.Packets, d.Matched.Bytes},
			Unreported: Tally{d.Unreported.Packets, d.Unreported.Bytes},
			Last:       v.last(d.Last), Reported: unwords(d.Reported),
			Match: Match(d.Match), ID: unwords(d.Id), IDLen: int(d.IdLen),
			Segment: int(d.Segment), Whole: d.Whole,
			Spin: Spin{
				Edge: v.time(s.Edge), Sum: time.Duration(s.Sum), Half: time.Duration(s.Half),
				Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
				Value: s.Value != 0, Started: s.Started != 0, Renewed: s.Renewed != 0,
			},
		}
	}
	return out
}

func (v *Monitor) spin(s *Spin) *datapathSpin {
	return &datapathSpin{
		Edge: v.mono(s.Edge), Sum: uint64(s.Sum), Half: uint64(s.Half),
		Packets: s.Packets, Edges: s.Edges, Samples: s.Samples, Rejected: s.Rejected,
		Value: uint8(bit(s.Value)), Started: uint8(bit(s.Started)), Renewed: uint8(bit(s.Renewed)),
	}
}

// mask returns the mask for an ID of n bytes.
func mask(n int) [MaxFlowID / 4]uint32 {
	var b [MaxFlowID]byte
	for i := range n {
		b[i] = 0xff
	}
	return words(b)
}

// words and unwords convert an ID from and to 32-bit words in native byte order.
func words(b [MaxFlowID]byte) (w [MaxFlowID / 4]uint32) {
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func unwords(w [MaxFlowID / 4]uint32) (b [MaxFlowID]byte) {
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return b
}
