package datapath

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// testContext is struct xdp_md, as BPF_PROG_TEST_RUN takes it.
type testContext struct {
	Data, DataEnd, DataMeta            uint32
	IngressIfindex, RxQueue, EgressIfi uint32
}

// Test runs the program on a frame as if the frame had arrived at an interface. It returns the
// verdict and the resulting frame, and sends nothing.
func (p *Program) Test(iface int, frame []byte) (Verdict, []byte, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return Aborted, nil, ErrClosed
	}
	opts := ebpf.RunOptions{
		Data:    frame,
		DataOut: make([]byte, len(frame)+256),
		Context: testContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(iface)},
	}
	verdict, err := p.objects.Quicway.Run(&opts)
	if err != nil {
		return Aborted, nil, fmt.Errorf("xdp: test run: %w", explain(err))
	}
	return Verdict(verdict), opts.DataOut, nil
}

// TestEgress is Test for the monitor stage at egress. segment is the size of the datagrams that GSO
// has put together, or 0. TestEgress returns ErrUnsupported if the kernel has no TCX, and ErrConfig
// if the program lacks the monitor stage.
func (p *Program) TestEgress(iface int, frame []byte, segment int) (Verdict, []byte, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return Aborted, nil, ErrClosed
	case p.egress == nil:
		return Aborted, nil, fmt.Errorf("xdp: test run: %w: Stages lacks the monitor stage", ErrConfig)
	case p.egress.missing != nil:
		return Aborted, nil, fmt.Errorf("xdp: test run: %w", p.egress.missing)
	}
	context := make([]byte, 184) // struct __sk_buff up to gso_size
	binary.NativeEndian.PutUint32(context[176:], uint32(segment))
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: context}
	verdict, err := p.egress.objects.QuicwayOut.Run(&opts)
	if err != nil {
		return Aborted, nil, fmt.Errorf("xdp: test run: %w", explain(err))
	}
	if int32(verdict) != tcxNext {
		return Verdict(verdict), opts.DataOut, nil
	}
	return Pass, opts.DataOut, nil
}

// tcxNext is TCX_NEXT in bpf/egress.c.
const tcxNext = -1
