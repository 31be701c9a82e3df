package xdp

import "github.com/quicway/quicway/internal/datapath"

// Program is the XDP program with its maps. All methods may be called concurrently.
type Program struct{ program *datapath.Program }

// Load loads the program into the kernel, with the stages of the configuration, and attaches
// it to no interface. cfg may be nil. Errors wrap [ErrPermission], [ErrUnsupported],
// [ErrConfig], or [ErrBusy] if another process uses the directory of Config.Pin. The caller
// closes the program.
func Load(cfg *Config) (*Program, error) {
	p, err := datapath.Load(cfg.datapath())
	if err != nil {
		return nil, err
	}
	return &Program{p}, nil
}

// Attach attaches the program to an interface, and returns the mode. The relay stage may then
// forward packets to this interface as well. Auto tries Native first, and logs why that is not
// possible. The monitor stage also sees egress packets if [Program.SeesEgress] says so.
//
// If the interface is deleted, and another one is made with the same name in the network
// namespace of the calling thread, the program is attached again, until Detach or Close. That
// takes three file descriptors and a goroutine for each interface, keeps the namespace alive,
// and needs CAP_SYS_ADMIN in a namespace that is not the process's own. An explicit Attach to
// the new interface is no error.
//
// Errors wrap [ErrBusy], [ErrMTU], [ErrPermission], [ErrClosed], or [ErrUnsupported], which is
// also returned for interfaces without Ethernet headers, such as WireGuard and TUN devices.
func (p *Program) Attach(iface string, mode Mode) (Mode, error) {
	got, err := p.program.Attach(iface, datapath.Mode(mode))
	return Mode(got), err
}

// Detach detaches the program from an interface, also if an earlier process attached it
// (Config.Pin). Detach returns nil if the program is not attached there.
func (p *Program) Detach(iface string) error { return p.program.Detach(iface) }

// SeesEgress says whether the monitor stage sees the egress packets of an interface that the
// program is attached to. That needs Linux 6.6 and an Ethernet interface. Otherwise the monitor
// stage sees only ingress packets, and Attach logs so. Packets that this host forwards are seen
// once, at ingress.
func (p *Program) SeesEgress(iface string) bool { return p.program.SeesEgress(iface) }

// SetNext sets the XDP program that gets the packets that this program passes, by its file
// descriptor, which may be closed afterwards. A negative descriptor means that these packets go
// to the kernel's network stack, as in the beginning. The next program must be loaded with the
// expected attach type BPF_XDP, and without multi-buffer support.
func (p *Program) SetNext(fd int) error { return p.program.SetNext(fd) }

// FD returns the program's file descriptor, so that another program can call this one, by a tail
// call through a BPF_MAP_TYPE_PROG_ARRAY. The descriptor is valid until Close. FD returns -1 on
// other systems than Linux.
func (p *Program) FD() int { return p.program.FD() }

// Stats returns the number of packets by [Reason], since Load, or since the first Load with the
// same Pin. Reasons of the monitor stage are there only if the program has this stage.
func (p *Program) Stats() (map[Reason]uint64, error) {
	stats, err := p.program.Stats()
	if err != nil {
		return nil, err
	}
	out := make(map[Reason]uint64, len(stats))
	for reason, n := range stats {
		out[Reason(reason.String())] = n
	}
	return out, nil
}

// Reason says what the program has done with a packet, in a form that fits a label of a metric,
// such as "relayed" or "quota_denied". The package documentation lists all reasons.
type Reason string

// String returns the reason itself.
func (r Reason) String() string { return string(r) }

// StageErr returns nil if the program has the stage, an error that wraps [ErrConfig] if
// Config.Stages lacks the stage, and one that wraps [ErrUnsupported], with the kernel's version
// and what the stage needs, if the kernel has refused the stage.
func (p *Program) StageErr(stage Stage) error { return p.program.StageErr(datapath.Stage(stage)) }

// Pinned says whether the program outlives the process: see Config.Pin.
func (p *Program) Pinned() bool { return p.program.Pinned() }

// Close detaches the program from all interfaces and unloads it, unless it is pinned. Further
// calls do nothing and return nil.
func (p *Program) Close() error { return p.program.Close() }

// Datapath returns the program as packages relay, quota and monitor use it. It is of no use to
// other modules.
func (p *Program) Datapath() *datapath.Program { return p.program }

// Unpin detaches the program that is pinned in a directory, and removes the program, its maps
// and the directory. Unpin returns nil if the directory does not exist, ErrBusy while a process
// uses it, and ErrConfig if the directory is not on a BPF file system.
func Unpin(dir string) error { return datapath.Unpin(dir) }
