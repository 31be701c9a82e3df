package monitor

import (
	"errors"
	"fmt"
	"net"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/xdp"
)

// kernel is a source whose packets are those that the kernel's flow table reports.
type kernel struct {
	program *datapath.Program
	flows   *datapath.Monitor
}

var _ Source = (*kernel)(nil)

// Kernel returns a source that watches the interfaces to which a program is
// attached. The program needs the stage xdp.MonitorStage. XDP sees ingress packets. TCX
// sees egress packets, if the kernel has it (xdp.Program.SeesEgress).
//
// The kernel counts the packets of known connections, which takes some tens of
// nanoseconds each. It reports the others to the tracker: new connections,
// handshakes, and changes of connection IDs and paths. The times of connections
// are then those of the kernel's tick, and counters are up to date once a second
// and whenever they are read.
//
// A program has at most one such source. The error wraps xdp.ErrBusy if there is
// another one, xdp.ErrConfig if the program lacks the monitor stage, and xdp.ErrUnsupported
// on systems without XDP. Closing the source does not close the program.
func Kernel(program *xdp.Program) (Source, error) {
	flows, err := program.Datapath().Monitor()
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	return &kernel{program: program.Datapath(), flows: flows}, nil
}

// Read implements [Source].
func (k *kernel) Read(p *Packet) error {
	var s datapath.Sample
	if err := k.flows.Read(&s); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return net.ErrClosed
		}
		return fmt.Errorf("monitor: %w", err)
	}
	*p = Packet{
		Time: s.Time, Interface: s.Interface, Direction: Inbound, Link: LinkEthernet,
		Data: s.Data, Length: s.Length, SegmentSize: s.SegmentSize,
	}
	if s.Outbound {
		p.Direction = Outbound
	}
	return nil
}

// Live implements [Source].
func (k *kernel) Live() bool { return true }

// Dropped implements [Source]. It returns the number of packets that the kernel
// could not report for want of room, most of which it has counted, and of those
// that it did not read because there were too many.
func (k *kernel) Dropped() uint64 {
	stats, err := k.program.Stats()
	if err != nil {
		return 0
	}
	return stats[datapath.MonitorRingFull] + stats[datapath.MonitorSkipped] + stats[datapath.MonitorFlowFailed]
}

// Close implements [Source].
func (k *kernel) Close() error { return k.flows.Close() }
